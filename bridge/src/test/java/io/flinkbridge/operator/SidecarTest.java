package io.flinkbridge.operator;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.Headers;
import io.flinkbridge.record.KeyHash;
import io.flinkbridge.testing.Harness;
import io.flinkbridge.testing.Segments;
import io.flinkbridge.testing.Sidecar;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeSet;
import java.util.stream.IntStream;
import org.apache.flink.api.common.JobID;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.AbstractStreamOperatorTestHarness;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * The operator with a real sidecar: routes, lists without keys, ticks, zombies, and a sidecar that
 * dies or comes late.
 */
@Timeout(300)
final class SidecarTest {
  private static final String PIPELINE =
      """
      name: several
      sources:
        in: { kind: generator }
      steps:
        - { name: split, kind: route, routes: { big: .v > 10, small: default } }
        - { name: bundle, kind: batch, from: split.big, size: 4, time: 1s }
      sinks:
        bundles: { kind: discard, from: bundle }
        small: { kind: discard, from: split.small }
      """;

  private static final int SPLIT = 0;
  private static final int BUNDLE = 1;

  private static Sidecar sidecar;

  @BeforeAll
  static void start() throws Exception {
    sidecar = Sidecar.start(PIPELINE, 2, "--sessions-per-slot", "20", "--state-memory", "64MiB");
  }

  @AfterAll
  static void stop() throws Exception {
    sidecar.close();
  }

  private static StreamRecord<BridgeRecord> record(String text) {
    return new StreamRecord<>(BridgeRecord.of(text));
  }

  @Test
  void recordsKeepWhatTheyHave() throws Exception {
    SegmentSettings settings = Segments.of(sidecar, SPLIT);
    try (var harness = Harness.of(settings)) {
      harness.open();
      BridgeRecord full =
          new BridgeRecord(
              "{\"v\":11}".getBytes(StandardCharsets.UTF_8),
              Headers.of("a", "1", "ü", ""),
              42,
              "key".getBytes(StandardCharsets.UTF_8),
              KeyHash.of("key".getBytes(StandardCharsets.UTF_8)),
              0,
              0);
      harness.processElement(new StreamRecord<>(full, 42));
      harness.processElement(new StreamRecord<>(BridgeRecord.of("{\"v\":1}")));
      harness.processElement(
          new StreamRecord<>(
              BridgeRecord.of("{\"v\":2}").withTimestamp(5),
              -7)); // Flink's event time is what counts
      Harness.checkpoint(harness, 1);
      List<StreamRecord<BridgeRecord>> big =
          List.copyOf(harness.getSideOutput(Routes.tag(settings.stepName(), "big")));
      List<StreamRecord<BridgeRecord>> small =
          List.copyOf(harness.getSideOutput(Routes.tag(settings.stepName(), "small")));
      assertEquals(1, big.size());
      assertEquals(full.headers, big.get(0).getValue().headers);
      assertEquals(full.text(), big.get(0).getValue().text());
      assertArrayEquals(full.key, big.get(0).getValue().key);
      assertEquals(full.keyHash, big.get(0).getValue().keyHash);
      assertEquals(42, big.get(0).getTimestamp());
      assertEquals(2, small.size());
      assertEquals(1, small.get(0).getValue().route);
      assertTrue(!small.get(0).hasTimestamp());
      assertEquals(-7, small.get(1).getTimestamp());
      assertTrue(harness.getOutput().isEmpty(), "with routes nothing leaves by the main output");
    }
  }

  @Test
  void ticksComeWhenTheStepsWantThem() throws Exception {
    try (var harness = Harness.of(Segments.of(sidecar, BUNDLE))) {
      harness.setProcessingTime(10_000);
      harness.open();
      harness.processElement(record("1"));
      Sidecar.waitUntil(
          "the batch's timer",
          () -> {
            Harness.runMails(harness);
            return harness.getProcessingTimeService().getNumActiveTimers() == 1;
          });
      harness.setProcessingTime(10_999);
      harness.setProcessingTime(11_000);
      Harness.runUntil(harness, 1);
      assertEquals(List.of("[1]"), Harness.output(harness));
      assertEquals(0, harness.getProcessingTimeService().getNumActiveTimers());
    }
  }

  @Test
  void listsWithoutKeysAreDealtOutAnew() throws Exception {
    List<OperatorSubtaskState> snapshots = new ArrayList<>();
    for (int subtask = 0; subtask < 2; subtask++) {
      try (var harness = Harness.of(Segments.of(sidecar, BUNDLE), 2, subtask)) {
        harness.open();
        for (int i = 0; i < 3; i++) {
          harness.processElement(record(String.valueOf(10 * subtask + i)));
        }
        snapshots.add(Harness.checkpoint(harness, 1));
        assertEquals(0, harness.getOutput().size(), "three are pending");
      }
    }
    OperatorSubtaskState all =
        AbstractStreamOperatorTestHarness.repackageState(
            snapshots.toArray(OperatorSubtaskState[]::new));
    List<OperatorSubtaskState> next = new ArrayList<>();
    for (int subtask = 0; subtask < 3; subtask++) {
      try (var harness = Harness.of(Segments.of(sidecar, BUNDLE), 3, subtask)) {
        harness.initializeState(
            AbstractStreamOperatorTestHarness.repartitionOperatorState(all, 128, 2, 3, subtask));
        harness.open();
        next.add(Harness.checkpoint(harness, 2));
      }
    }
    OperatorSubtaskState again =
        AbstractStreamOperatorTestHarness.repackageState(next.toArray(OperatorSubtaskState[]::new));
    try (var harness = Harness.of(Segments.of(sidecar, BUNDLE), 1, 0)) {
      harness.initializeState(
          AbstractStreamOperatorTestHarness.repartitionOperatorState(again, 128, 3, 1, 0));
      harness.open();
      harness.endInput();
      TreeSet<String> seen = new TreeSet<>();
      for (String text : Harness.output(harness)) {
        seen.addAll(List.of(text.replaceAll("[\\[\\]]", "").split(",")));
      }
      assertEquals(new TreeSet<>(List.of("0", "1", "2", "10", "11", "12")), seen);
    }
  }

  @Test
  void aZombieIsFenced() throws Exception {
    JobID job = new JobID();
    try (var zombie = Harness.of(Segments.of(sidecar, BUNDLE), job);
        var successor = Harness.of(Segments.of(sidecar, BUNDLE), job)) {
      zombie.open();
      zombie.processElement(record("1"));
      successor.open();
      Exception e = assertThrows(Exception.class, zombie::endInput);
      assertTrue(String.valueOf(e).contains("FAILED_PRECONDITION"), String.valueOf(e));
      for (int i = 0; i < 4; i++) {
        successor.processElement(record(String.valueOf(i)));
      }
      successor.endInput();
      assertEquals(List.of("[0,1,2,3]"), Harness.output(successor));
    }
  }

  @Test
  void anotherTopologyIsRefused() throws Exception {
    SegmentSettings good = Segments.of(sidecar, SPLIT);
    SegmentSettings bad =
        new SegmentSettings(
            good.pipeline(),
            "0123",
            good.id(),
            good.stepName(),
            false,
            128,
            good.routes(),
            good.address(),
            good.tuning());
    try (var harness = Harness.of(bad)) {
      Exception e = assertThrows(Exception.class, harness::open);
      assertTrue(e.getMessage().contains("FAILED_PRECONDITION"), e.getMessage());
    }
  }

  @Test
  void workersMayDieUnnoticed() throws Exception {
    try (var harness = Harness.of(Segments.of(sidecar, SPLIT))) {
      harness.open();
      int records = 20_000;
      for (int i = 0; i < records; i++) {
        if (i % 5000 == 2500) {
          sidecar.killWorker(0);
          sidecar.killWorker(1);
        }
        harness.processElement(record("{\"v\":11,\"i\":" + i + "}"));
      }
      harness.endInput();
      List<String> expected =
          IntStream.range(0, records).mapToObj(i -> "{\"v\":11,\"i\":" + i + "}").toList();
      List<String> found =
          harness.getSideOutput(Routes.tag(sidecar.segmentName(SPLIT), "big")).stream()
              .map(r -> r.getValue().text())
              .toList();
      assertEquals(expected, found);
    }
  }

  @Test
  void aFrontThatDiesFailsTheTask() throws Exception {
    try (Sidecar mortal = Sidecar.start(PIPELINE, 1);
        var harness = Harness.of(Segments.of(mortal, SPLIT))) {
      harness.open();
      mortal.killFront();
      Exception e =
          assertThrows(
              Exception.class,
              () -> {
                for (int i = 0; i < 1000; i++) {
                  harness.processElement(record("{\"v\":1}"));
                }
                harness.endInput();
              });
      assertTrue(String.valueOf(e).contains("UNAVAILABLE"), String.valueOf(e));
    }
  }

  @Test
  void aSidecarThatComesLateIsWaitedFor() throws Exception {
    try (Sidecar late = Sidecar.prepare(PIPELINE, 1);
        OneInputStreamOperatorTestHarness<BridgeRecord, BridgeRecord> harness =
            Harness.of(Segments.of(late, SPLIT))) {
      Thread starter =
          new Thread(
              () -> {
                try {
                  late.start();
                } catch (Exception e) {
                  throw new AssertionError(e);
                }
              });
      starter.start();
      harness.open();
      starter.join();
      harness.processElement(record("{\"v\":1}"));
      harness.endInput();
      assertEquals(1, harness.getSideOutput(Routes.tag(late.segmentName(SPLIT), "small")).size());
    }
  }
}
