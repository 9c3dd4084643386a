package io.flinkbridge.operator;

import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.Histogram;
import org.apache.flink.metrics.MetricGroup;
import org.apache.flink.runtime.metrics.DescriptiveStatisticsHistogram;

/**
 * What a bridge operator counts, in the group {@code bridge} of its metrics; docs/flink-operator.md
 * lists them. Records in and out are Flink's own {@code numRecordsIn} and {@code numRecordsOut}.
 */
final class BridgeMetrics {
  private static final int HISTOGRAM_SIZE = 1024;

  final Counter bytesIn;
  final Counter bytesOut;
  final Counter batches;
  final Counter ticks;
  final Counter deltaBytes;
  final Counter deltaEntries;
  final Counter restoredEntries;
  final Counter errors;
  final Counter pauses;
  final Counter pauseMillis;
  final Histogram batchRecords;
  final Histogram roundTripMicros;
  final Histogram barrierMillis;
  private final MetricGroup group;

  BridgeMetrics(MetricGroup operator) {
    group = operator.addGroup("bridge");
    bytesIn = group.counter("bytesIn");
    bytesOut = group.counter("bytesOut");
    batches = group.counter("batches");
    ticks = group.counter("ticks");
    deltaBytes = group.counter("deltaBytes");
    deltaEntries = group.counter("deltaEntries");
    restoredEntries = group.counter("restoredEntries");
    errors = group.counter("errors");
    pauses = group.counter("pauses");
    pauseMillis = group.counter("pauseMillis");
    batchRecords =
        group.histogram("batchRecords", new DescriptiveStatisticsHistogram(HISTOGRAM_SIZE));
    roundTripMicros =
        group.histogram("roundTripMicros", new DescriptiveStatisticsHistogram(HISTOGRAM_SIZE));
    barrierMillis =
        group.histogram("barrierMillis", new DescriptiveStatisticsHistogram(HISTOGRAM_SIZE));
  }

  /** What is shown as it stands. */
  void registerGauges(SessionOpener opener, InFlightWindow window) {
    group.gauge("waitingForSidecar", () -> opener.isWaiting() ? 1 : 0);
    group.gauge("inFlightRecords", window::records);
    group.gauge("inFlightBytes", window::bytes);
    group.gauge("windowRecords", window::limit);
  }
}
