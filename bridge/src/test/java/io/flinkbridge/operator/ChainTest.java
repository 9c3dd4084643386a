package io.flinkbridge.operator;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.BridgeRecordTypeInfo;
import io.flinkbridge.testing.Segments;
import io.flinkbridge.testing.Sidecar;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.flink.api.common.RuntimeExecutionMode;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.RestartStrategyOptions;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.ProcessFunction;
import org.apache.flink.util.Collector;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * Two bridge operators in one task chain: the first emits from within its mails into the second,
 * which waits for its own window meanwhile, while barriers come every few milliseconds. Nothing is
 * lost, doubled or overtaken.
 */
@Timeout(value = 300, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
final class ChainTest {
  private static final int RECORDS = 30_000;
  private static final AtomicLong CHECKPOINTS = new AtomicLong();
  private static final String PIPELINE =
      """
      name: chain
      sources:
        in: { kind: generator }
      steps:
        - { name: twice, kind: flat_map, program: "., . + 0.5", parallelism: 1 }
        - { name: pass,  kind: passthrough, parallelism: 2 }
      sinks:
        out: { kind: discard }
      """;

  /** Counts completed checkpoints, and keeps the order. */
  private static final class Watcher extends ProcessFunction<BridgeRecord, String>
      implements org.apache.flink.api.common.state.CheckpointListener {
    private static final long serialVersionUID = 1L;

    @Override
    public void processElement(BridgeRecord record, Context context, Collector<String> out) {
      out.collect(record.text());
    }

    @Override
    public void notifyCheckpointComplete(long checkpoint) {
      CHECKPOINTS.incrementAndGet();
    }
  }

  @Test
  void chainedOperatorsKeepOrderUnderBarriers() throws Exception {
    try (Sidecar sidecar = Sidecar.start(PIPELINE, 1)) {
      Configuration configuration = new Configuration();
      configuration.set(RestartStrategyOptions.RESTART_STRATEGY, "none");
      StreamExecutionEnvironment environment =
          StreamExecutionEnvironment.createLocalEnvironment(1, configuration);
      environment.setRuntimeMode(RuntimeExecutionMode.STREAMING);
      environment.enableCheckpointing(10);
      DataStream<BridgeRecord> records =
          environment
              .fromSequence(0, RECORDS - 1)
              .map(
                  number -> BridgeRecord.of(String.valueOf(number)), BridgeRecordTypeInfo.INSTANCE);
      List<String> expected = new ArrayList<>();
      for (int i = 0; i < RECORDS; i++) {
        expected.add(String.valueOf(i));
        expected.add(i + ".5");
      }
      List<String> found = new ArrayList<>();
      DataStream<BridgeRecord> twice = apply(records, tight(Segments.of(sidecar, 0)), "first");
      DataStream<String> texts =
          apply(twice, tight(Segments.of(sidecar, 1)), "second")
              .process(new Watcher(), Types.STRING);
      try (var results = texts.executeAndCollect("chain")) {
        results.forEachRemaining(found::add);
      }
      assertEquals(expected, found);
      assertTrue(CHECKPOINTS.get() > 0, "no checkpoint was completed meanwhile");
    }
  }

  private static DataStream<BridgeRecord> apply(
      DataStream<BridgeRecord> input, SegmentSettings settings, String uid) {
    return input
        .transform(uid, BridgeRecordTypeInfo.INSTANCE, new BridgeOperatorFactory(settings))
        .uid(uid);
  }

  /** So small that both windows are full most of the time. */
  private static SegmentSettings tight(SegmentSettings settings) {
    SegmentSettings.Tuning usual = settings.tuning();
    return settings.with(
        new SegmentSettings.Tuning(
            usual.connectTimeout(), usual.answerTimeout(), Duration.ofMillis(100), 2048, 256));
  }
}
