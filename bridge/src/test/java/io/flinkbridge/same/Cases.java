package io.flinkbridge.same;

import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.same.NativeSteps.Aggregate;
import io.flinkbridge.same.NativeSteps.Batch;
import io.flinkbridge.same.NativeSteps.Dedup;
import io.flinkbridge.same.NativeSteps.Emit;
import java.util.List;
import java.util.function.Supplier;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.operators.KeyedProcessOperator;

/** All that is compared with Flink: one list. */
final class Cases {
  static final List<Case> ALL =
      List.of(
          aggregate("update", "update", () -> new Aggregate(Emit.UPDATE, 0, false)),
          aggregate(
              "event time",
              "event_time, every: 300ms",
              () -> new Aggregate(Emit.EVENT_TIME, 300, true)),
          aggregate(
              "event time, kept",
              "event_time, every: 1s, reset: false",
              () -> new Aggregate(Emit.EVENT_TIME, 1000, false)),
          aggregate(
              "processing time",
              "processing_time, every: 250ms",
              () -> new Aggregate(Emit.PROCESSING_TIME, 250, true)),
          of("dedup", "- { name: step, kind: dedup, key: .id }", () -> new Dedup(Long.MAX_VALUE)),
          of(
              "dedup with a time to live",
              "- { name: step, kind: dedup, key: .id, ttl: 500ms }",
              () -> new Dedup(500)),
          of(
              "batch",
              "- { name: step, kind: batch, size: 7, time: 300ms }",
              () -> new Batch(7, 300)));

  private Cases() {}

  private static Case aggregate(
      String name,
      String emit,
      Supplier<KeyedProcessFunction<String, BridgeRecord, BridgeRecord>> function) {
    return of(
        "aggregate by " + name,
        "- { name: step, kind: aggregate, fields: %s, emit: %s }".formatted(Aggregate.FIELDS, emit),
        function);
  }

  private static Case of(
      String name,
      String steps,
      Supplier<KeyedProcessFunction<String, BridgeRecord, BridgeRecord>> function) {
    return new Case(name, steps, 1, () -> new KeyedProcessOperator<>(function.get()));
  }
}
