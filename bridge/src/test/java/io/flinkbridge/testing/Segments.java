package io.flinkbridge.testing;

import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.job.JobBuilder;
import io.flinkbridge.operator.SegmentSettings;
import java.time.Duration;
import java.util.List;
import java.util.Map;

/** Settings of a running sidecar's segments, for tests of the operator alone. */
public final class Segments {
  private Segments() {}

  /** The settings of a segment as the descriptor has them. */
  @SuppressWarnings("unchecked")
  public static SegmentSettings of(Sidecar sidecar, int id) {
    Map<String, Object> config = sidecar.segment(id);
    return new SegmentSettings(
        (String) config.get("pipeline"),
        (String) config.get("topology_hash"),
        id,
        sidecar.segmentName(id),
        (Boolean) config.get("keyed"),
        (Integer) config.get("max_parallelism"),
        (List<String>) config.getOrDefault("routes", List.of()),
        sidecar.address(),
        tuning());
  }

  /** Times and sizes of a deployment that says nothing about them. */
  public static SegmentSettings.Tuning tuning() {
    return JobBuilder.tuning(FlinkSettings.defaults());
  }

  /** The same with other times to wait. */
  public static SegmentSettings.Tuning waiting(Duration connect, Duration answer) {
    SegmentSettings.Tuning usual = tuning();
    return new SegmentSettings.Tuning(
        connect, answer, usual.inFlightTime(), usual.inFlightBytes(), usual.batchBytes());
  }
}
