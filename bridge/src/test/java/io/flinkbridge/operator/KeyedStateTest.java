package io.flinkbridge.operator;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.testing.Harness;
import io.flinkbridge.testing.Segments;
import io.flinkbridge.testing.Sidecar;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.runtime.state.KeyGroupRangeAssignment;
import org.apache.flink.runtime.state.StateBackend;
import org.apache.flink.runtime.state.hashmap.HashMapStateBackend;
import org.apache.flink.state.rocksdb.EmbeddedRocksDBStateBackend;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.AbstractStreamOperatorTestHarness;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * State by key: into Flink's backends at a checkpoint, back into a session, at another parallelism.
 */
final class KeyedStateTest {
  private static final int MAX_PARALLELISM = 128;
  private static final String PIPELINE =
      """
      name: counts
      sources:
        in: { kind: generator }
      steps:
        - { name: by_user, kind: key_by, key: .user }
        - { name: totals, kind: aggregate, fields: { n: count } }
        - { name: timed, kind: aggregate, from: by_user, fields: { n: count }, emit: processing_time, every: 1s }
      sinks:
        out: { kind: discard, from: [totals, timed] }
      """;

  private static Sidecar sidecar;

  @BeforeAll
  static void start() throws Exception {
    sidecar = Sidecar.start(PIPELINE, 2, "--sessions-per-slot", "40", "--state-memory", "64MiB");
  }

  @AfterAll
  static void stop() throws Exception {
    sidecar.close();
  }

  static Stream<StateBackend> backends() {
    return Stream.of(new HashMapStateBackend(), rocksdb(false), rocksdb(true));
  }

  private static StateBackend rocksdb(boolean isIncremental) {
    EmbeddedRocksDBStateBackend backend = new EmbeddedRocksDBStateBackend(isIncremental);
    backend
        .getMemoryConfiguration()
        .setUseManagedMemory(false); // of which the harness has too little
    return backend;
  }

  private static OneInputStreamOperatorTestHarness<BridgeRecord, BridgeRecord> harness(
      StateBackend backend, int parallelism, int subtask) throws Exception {
    return Harness.of(Segments.of(sidecar, 1), parallelism, subtask, backend);
  }

  private static BridgeRecord record(String key) {
    return BridgeRecord.of("{}").withKey(key.getBytes(StandardCharsets.UTF_8));
  }

  private static int subtaskOf(BridgeRecord record, int parallelism) {
    return KeyGroupRangeAssignment.assignKeyToParallelOperator(
        record.keyHash, MAX_PARALLELISM, parallelism);
  }

  /** The last count of each key, out of what a harness emitted. */
  private static Map<String, Integer> counts(
      AbstractStreamOperatorTestHarness<BridgeRecord> harness) {
    Map<String, Integer> counts = new TreeMap<>();
    for (BridgeRecord record : harness.extractOutputValues()) {
      String text = record.text();
      String key = text.replaceAll(".*\"key\":\"([^\"]*)\".*", "$1");
      counts.merge(key, Integer.parseInt(text.replaceAll(".*\"n\":(\\d+).*", "$1")), Math::max);
    }
    return counts;
  }

  @ParameterizedTest
  @MethodSource("backends")
  void whatWasCountedIsThereAfterARestore(StateBackend backend) throws Exception {
    OperatorSubtaskState snapshot;
    try (var harness = harness(backend, 1, 0)) {
      harness.open();
      for (int i = 0; i < 3000; i++) {
        harness.processElement(new StreamRecord<>(record("k" + i % 1000)));
      }
      snapshot = Harness.checkpoint(harness, 1);
      assertEquals(
          backend instanceof HashMapStateBackend ? "hashmap" : "rocksdb",
          harness.getOperator().getKeyedStateBackend().getBackendTypeIdentifier());
      assertEquals(3000, harness.getOutput().size(), "all results before the barrier are out");
    }
    try (var harness = harness(backend, 1, 0)) {
      harness.setRestoredCheckpointId(1);
      harness.initializeState(snapshot);
      harness.open();
      for (int i = 0; i < 1000; i++) {
        harness.processElement(new StreamRecord<>(record("k" + i)));
      }
      snapshot = Harness.checkpoint(harness, 2);
      Map<String, Integer> counts = counts(harness);
      assertEquals(1000, counts.size());
      counts.forEach((key, count) -> assertEquals(4, count, key));
    }
  }

  @Test
  void timersOfProcessingTimeGoOnAfterARestore() throws Exception {
    OperatorSubtaskState snapshot;
    try (var harness = Harness.of(Segments.of(sidecar, 2))) {
      harness.setProcessingTime(10_500);
      harness.open();
      harness.processElement(new StreamRecord<>(record("a")));
      snapshot = Harness.checkpoint(harness, 1);
      assertEquals(0, harness.getOutput().size());
    }
    try (var harness = Harness.of(Segments.of(sidecar, 2))) {
      harness.setProcessingTime(10_600);
      harness.initializeState(snapshot);
      harness.open();
      assertEquals(1, harness.getProcessingTimeService().getNumActiveTimers());
      harness.setProcessingTime(11_000);
      Harness.runUntil(harness, 1);
      assertEquals(Map.of("a", 1), counts(harness));
    }
  }

  @Test
  void whatAnAbortedCheckpointTookIsInTheNextOne() throws Exception {
    OperatorSubtaskState snapshot;
    try (var harness = harness(new HashMapStateBackend(), 1, 0)) {
      harness.open();
      harness.processElement(new StreamRecord<>(record("a")));
      Harness.checkpoint(harness, 1).discardState();
      harness.getOperator().notifyCheckpointAborted(1);
      harness.processElement(new StreamRecord<>(record("b")));
      snapshot = Harness.checkpoint(harness, 2);
    }
    try (var harness = harness(new HashMapStateBackend(), 1, 0)) {
      harness.initializeState(snapshot);
      harness.open();
      harness.processElement(new StreamRecord<>(record("a")));
      harness.processElement(new StreamRecord<>(record("b")));
      Harness.checkpoint(harness, 3);
      assertEquals(Map.of("a", 2, "b", 2), counts(harness));
    }
  }

  @ParameterizedTest
  @MethodSource("backends")
  void stateFollowsItsKeysFrom4SubtasksTo12To3(StateBackend backend) throws Exception {
    int keys = 500;
    OperatorSubtaskState state = null;
    int before = 0;
    int round = 0;
    for (int parallelism : new int[] {4, 12, 3}) {
      round++;
      List<OneInputStreamOperatorTestHarness<BridgeRecord, BridgeRecord>> subtasks =
          new ArrayList<>();
      List<OperatorSubtaskState> snapshots = new ArrayList<>();
      Map<String, Integer> counts = new TreeMap<>();
      for (int i = 0; i < parallelism; i++) {
        var subtask = harness(backend, parallelism, i);
        subtasks.add(subtask);
        if (state != null) {
          subtask.initializeState(
              AbstractStreamOperatorTestHarness.repartitionOperatorState(
                  state, MAX_PARALLELISM, before, parallelism, i));
        }
        subtask.open();
      }
      for (int i = 0; i < keys; i++) {
        BridgeRecord record = record("k" + i);
        subtasks.get(subtaskOf(record, parallelism)).processElement(new StreamRecord<>(record));
      }
      for (var subtask : subtasks) {
        snapshots.add(Harness.checkpoint(subtask, round));
        counts.putAll(counts(subtask));
      }
      assertEquals(keys, counts.size());
      int expected = round;
      counts.forEach((key, count) -> assertEquals(expected, count, key));
      state =
          AbstractStreamOperatorTestHarness.repackageState(
              snapshots.toArray(OperatorSubtaskState[]::new));
      before = parallelism;
      for (var subtask : subtasks) {
        subtask.close();
      }
    }
  }
}
