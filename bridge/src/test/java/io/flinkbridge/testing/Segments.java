package io.flinkbridge.testing;

import io.flinkbridge.operator.SegmentSettings;
import java.util.List;
import java.util.Map;

/** Settings of a running sidecar's segments, for tests of the operator alone. */
public final class Segments {
  private Segments() {}

  /** The settings of a segment as the descriptor has them. */
  @SuppressWarnings("unchecked")
  public static SegmentSettings of(Sidecar sidecar, int id) {
    Map<String, Object> config = sidecar.segment(id);
    return SegmentSettings.of(
        (String) config.get("pipeline"),
        (String) config.get("topology_hash"),
        id,
        sidecar.segmentName(id),
        (Boolean) config.get("keyed"),
        (Integer) config.get("max_parallelism"),
        ((List<?>) config.get("inputs")).size(),
        (List<String>) config.getOrDefault("routes", List.of()),
        sidecar.address());
  }
}
