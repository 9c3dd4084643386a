package io.flinkbridge.operator;

import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.BridgeRecordTypeInfo;
import io.flinkbridge.testing.Segments;
import io.flinkbridge.testing.Sidecar;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.TreeMap;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.ProcessFunction;
import org.apache.flink.util.Collector;

/**
 * What the operator costs per record: a passthrough segment against an identity map, in one task of
 * a local Flink. Not a test; run its main with the number of records, the bytes of a payload, and
 * {@code bridge} or {@code identity}. It prints records per second between the first and the last
 * record, and the processor time per record by thread, which a busy machine changes little.
 */
final class OperatorBench {
  private static final String PIPELINE =
      """
      name: passes
      sources:
        in: { kind: generator }
      steps:
        - { name: pass, kind: passthrough }
      sinks:
        out: { kind: discard }
      """;

  private static final ThreadMXBean THREADS = ManagementFactory.getThreadMXBean();
  private static long measured;
  private static long firstAt;
  private static long lastAt;
  private static Map<String, Long> cpuAtFirst;
  private static Map<String, Long> cpuAtLast;

  private OperatorBench() {}

  public static void main(String[] args) throws Exception {
    long records = Long.parseLong(args[0]);
    int bytes = Integer.parseInt(args[1]);
    long warmup = records / 3;
    measured = records - warmup;
    try (Sidecar sidecar = Sidecar.start(PIPELINE, 1)) {
      StreamExecutionEnvironment environment = StreamExecutionEnvironment.createLocalEnvironment(1);
      environment.getConfig().enableObjectReuse();
      byte[] payload = "x".repeat(bytes).getBytes(StandardCharsets.UTF_8);
      DataStream<BridgeRecord> stream =
          environment
              .fromSequence(0, records - 1)
              .map(number -> BridgeRecord.of(payload, number), BridgeRecordTypeInfo.INSTANCE);
      DataStream<BridgeRecord> passed =
          args[2].equals("bridge")
              ? stream.transform(
                  "pass",
                  BridgeRecordTypeInfo.INSTANCE,
                  new BridgeOperatorFactory(Segments.of(sidecar, 0)))
              : stream.map(record -> record, BridgeRecordTypeInfo.INSTANCE);
      passed.process(new Meter(warmup, records), BridgeRecordTypeInfo.INSTANCE);
      environment.execute();
    }
    double seconds = (lastAt - firstAt) / 1e9;
    System.out.printf("%s %d bytes: %.0f records/s%n", args[2], bytes, measured / seconds);
    cpuAtLast.forEach(
        (thread, time) -> {
          double each = (time - cpuAtFirst.getOrDefault(thread, 0L)) / (double) measured;
          if (each >= 5) {
            System.out.printf("  %5.0f ns of a processor per record: %s%n", each, thread);
          }
        });
  }

  /** Processor time so far by thread. */
  private static Map<String, Long> cpu() {
    Map<String, Long> all = new TreeMap<>();
    for (long id : THREADS.getAllThreadIds()) {
      var info = THREADS.getThreadInfo(id);
      if (info != null) {
        all.merge(info.getThreadName(), THREADS.getThreadCpuTime(id), Long::sum);
      }
    }
    return all;
  }

  /** Takes note of the first record behind the warm-up, and of the last. */
  private static final class Meter extends ProcessFunction<BridgeRecord, BridgeRecord> {
    private static final long serialVersionUID = 1L;
    private final long warmup;
    private final long records;
    private long seen;

    private Meter(long warmup, long records) {
      this.warmup = warmup;
      this.records = records;
    }

    @Override
    public void processElement(BridgeRecord record, Context context, Collector<BridgeRecord> out) {
      if (++seen == warmup) {
        cpuAtFirst = cpu();
        firstAt = System.nanoTime();
      } else if (seen == records) {
        lastAt = System.nanoTime();
        cpuAtLast = cpu();
      }
    }
  }
}
