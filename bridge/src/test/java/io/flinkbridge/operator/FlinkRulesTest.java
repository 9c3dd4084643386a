package io.flinkbridge.operator;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import flink_bridge.FlinkBridgeOuterClass.FromWorker;
import flink_bridge.FlinkBridgeOuterClass.Open;
import flink_bridge.FlinkBridgeOuterClass.StateDeclaration;
import flink_bridge.FlinkBridgeOuterClass.StateDelta;
import flink_bridge.FlinkBridgeOuterClass.StateEntry;
import flink_bridge.FlinkBridgeOuterClass.StateKind;
import flink_bridge.FlinkBridgeOuterClass.ToWorker;
import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.job.JobBuilder;
import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.BridgeRecordTypeInfo;
import io.flinkbridge.record.Headers;
import io.flinkbridge.record.KeyHash;
import io.flinkbridge.testing.FakeSidecar;
import io.flinkbridge.testing.Harness;
import io.flinkbridge.testing.Programs;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.IntStream;
import net.openhft.hashing.LongHashFunction;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.runtime.jobgraph.JobVertex;
import org.apache.flink.runtime.state.KeyGroupRangeAssignment;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.graph.StreamNode;
import org.apache.flink.streaming.runtime.streamrecord.LatencyMarker;
import org.apache.flink.streaming.runtime.streamrecord.RecordAttributes;
import org.apache.flink.streaming.runtime.streamrecord.RecordAttributesBuilder;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * Rules of Flink that are broken without a word, and show long after: a test for each that no other
 * test is about. Order, barriers, the end and a lost sidecar are in {@link ProtocolTest}, state in
 * {@link KeyedStateTest}, two operators in one chain in {@link ChainTest}.
 */
@Timeout(300)
final class FlinkRulesTest {
  private static final StateDeclaration VALUE =
      StateDeclaration.newBuilder()
          .setStep("s")
          .setName("v")
          .setKind(StateKind.STATE_VALUE)
          .setFormatVersion(1)
          .build();

  private static StreamRecord<BridgeRecord> record(String text) {
    return new StreamRecord<>(BridgeRecord.of(text));
  }

  /** With object reuse the record, and all that it holds, is the next one's once we return. */
  @Test
  void aRecordIsNotKept() throws Exception {
    AtomicInteger batches = new AtomicInteger();
    List<ToWorker> held = new CopyOnWriteArrayList<>();
    AtomicReference<FakeSidecar> self = new AtomicReference<>();
    try (FakeSidecar sidecar =
            new FakeSidecar(
                (message, session) -> {
                  boolean isHeld = message.hasBatch() && batches.incrementAndGet() <= 2;
                  if (isHeld) {
                    held.add(message);
                  } else {
                    held.forEach(one -> self.get().answer(one, session));
                    held.clear();
                  }
                  return isHeld;
                });
        var harness = Harness.of(sidecar.settings(false))) {
      self.set(sidecar);
      harness.open();
      byte[] payload = "first".getBytes(StandardCharsets.UTF_8);
      byte[] key = "key 1".getBytes(StandardCharsets.UTF_8);
      StreamRecord<BridgeRecord> reused = new StreamRecord<>(null);
      for (int i = 0; i < 4; i++) { // two messages are on their way, the others in the batch
        payload[0] = (byte) ('a' + i);
        key[4] = (byte) ('1' + i);
        reused.replace(new BridgeRecord(payload, Headers.EMPTY, i, key, 7, 0, 0), i);
        harness.processElement(reused);
      }
      Arrays.fill(payload, (byte) 'X');
      Arrays.fill(key, (byte) 'X');
      reused.replace(null);
      harness.endInput();
      List<String> found =
          harness.extractOutputValues().stream()
              .map(one -> one.text() + " " + new String(one.key, StandardCharsets.UTF_8))
              .toList();
      assertEquals(List.of("airst key 1", "birst key 2", "cirst key 3", "dirst key 4"), found);
    }
  }

  /** An IDLE that overtakes records makes them late; the defaults of Flink's operators let it. */
  @Test
  void nothingOvertakesWhatIsInFlight() throws Exception {
    List<ToWorker> held = new CopyOnWriteArrayList<>();
    AtomicReference<FakeSidecar> self = new AtomicReference<>();
    try (FakeSidecar sidecar =
            new FakeSidecar(
                (message, session) -> {
                  if (message.hasEndInput()) {
                    held.forEach(one -> self.get().answer(one, session));
                  } else if (!message.hasOpen()) {
                    held.add(message);
                  }
                  return !message.hasOpen() && !message.hasEndInput();
                });
        var harness = Harness.of(sidecar.settings(false))) {
      self.set(sidecar);
      harness.open();
      LatencyMarker marker = new LatencyMarker(1, harness.getOperator().getOperatorID(), 0);
      RecordAttributes attributes = new RecordAttributesBuilder(List.of()).setBacklog(true).build();
      harness.processElement(record("a"));
      harness.getOneInputOperator().processLatencyMarker(marker);
      harness.processRecordAttributes(attributes);
      Harness.runMails(harness);
      assertEquals(List.of(), Harness.output(harness), "what needs no answer waits, too");
      harness.processElement(record("b"));
      harness.processWatermark(5);
      harness.processWatermarkStatus(WatermarkStatus.IDLE);
      Harness.runMails(harness);
      assertEquals(List.of(), Harness.output(harness));
      harness.endInput();
      assertEquals(
          List.of(
              "a",
              marker.toString(),
              attributes.toString(),
              "b",
              "W5",
              WatermarkStatus.IDLE.toString()),
          Harness.output(harness));
    }
  }

  /** Flink does not keep watermarks in checkpoints: after a restore they begin anew. */
  @Test
  void watermarksBeginAnewAfterARestore() throws Exception {
    OperatorSubtaskState snapshot;
    try (FakeSidecar sidecar = new FakeSidecar((message, session) -> false);
        var harness = Harness.of(sidecar.settings(true))) {
      harness.open();
      harness.processWatermark(100);
      harness.processWatermark(90); // of one life they never go back
      snapshot = Harness.checkpoint(harness, 1);
      assertEquals(List.of("W100"), Harness.output(harness));
    }
    try (FakeSidecar sidecar = new FakeSidecar((message, session) -> false);
        var harness = Harness.of(sidecar.settings(true))) {
      harness.initializeState(snapshot);
      harness.open();
      harness.processWatermark(50);
      harness.endInput();
      assertEquals(List.of("W50"), Harness.output(harness));
    }
  }

  /**
   * Flink's heap backend would take state of a key group that another subtask has, and lose it at
   * the next change of the parallelism.
   */
  @Test
  void stateOfAnotherSubtasksKeysIsRefused() throws Exception {
    byte[] key = keyOf(0, 2);
    int hash = KeyHash.of(key);
    StateDelta delta =
        StateDelta.newBuilder()
            .addEntries(
                StateEntry.newBuilder()
                    .setKey(ByteString.copyFrom(key))
                    .setKeyHash(hash)
                    .setKeyGroup(KeyHash.groupOf(hash, 128)))
            .build();
    long checksum = LongHashFunction.xx3().hashBytes(delta.toByteArray());
    try (FakeSidecar sidecar =
            new FakeSidecar(
                List.of(VALUE),
                (message, session) -> {
                  if (message.hasBarrier()) {
                    session.send(
                        FromWorker.newBuilder()
                            .setSeq(message.getSeq())
                            .setStateDelta(delta.toBuilder().setChecksum(checksum)));
                  }
                  return false;
                });
        var harness = Harness.of(sidecar.settings(true), 2, 1)) {
      harness.open();
      Exception e = assertThrows(Exception.class, () -> harness.prepareSnapshotPreBarrier(1));
      assertTrue(
          e.getMessage()
              .contains(
                  "state of key group "
                      + KeyHash.groupOf(hash, 128)
                      + ", and this subtask has KeyGroupRange{startKeyGroup=64, endKeyGroup=127}"),
          e.getMessage());
    }
  }

  /** A key that Flink sends to a subtask. */
  private static byte[] keyOf(int subtask, int parallelism) {
    return IntStream.iterate(0, i -> i + 1)
        .mapToObj(i -> ("key" + i).getBytes(StandardCharsets.UTF_8))
        .filter(
            key ->
                KeyGroupRangeAssignment.assignKeyToParallelOperator(
                        KeyHash.of(key), 128, parallelism)
                    == subtask)
        .findFirst()
        .orElseThrow();
  }

  /**
   * What fences: attempt numbers begin at 0 again after a failover of the JobManager, so there are
   * the process and a number that grows within it.
   */
  @Test
  void anOpenSaysWhoAsks() throws Exception {
    List<Open> opens = new ArrayList<>();
    try (FakeSidecar sidecar = new FakeSidecar((message, session) -> false)) {
      for (int subtask = 0; subtask < 3; subtask++) {
        try (var harness = Harness.of(sidecar.settings(true), 3, subtask)) {
          harness.open();
          Open open = sidecar.received.get(sidecar.received.size() - 1).getOpen();
          assertEquals(harness.getEnvironment().getExecutionId().toString(), open.getAttemptId());
          opens.add(open);
        }
      }
    }
    for (int subtask = 0; subtask < 3; subtask++) {
      Open open = opens.get(subtask);
      assertEquals(subtask, open.getSubtask());
      assertEquals(3, open.getParallelism());
      assertEquals(128, open.getMaxParallelism());
      assertTrue(!open.getAllocationId().isEmpty());
      assertEquals(opens.get(0).getJvmUuid(), open.getJvmUuid());
      assertTrue(subtask == 0 || opens.get(subtask - 1).getOpenToken() < open.getOpenToken());
    }
    assertEquals(List.of(0, 43, 86), opens.stream().map(Open::getKeyGroupFirst).toList());
    assertEquals(List.of(42, 85, 127), opens.stream().map(Open::getKeyGroupLast).toList());
  }

  /** Two operators with nothing between them are one task: no copy, no network. */
  @Test
  void segmentsAreChained() {
    StreamExecutionEnvironment environment = StreamExecutionEnvironment.createLocalEnvironment(1);
    DataStream<BridgeRecord> records =
        environment.fromData(BridgeRecordTypeInfo.INSTANCE, BridgeRecord.of("x"));
    for (String name : List.of("one", "two")) {
      SegmentSettings settings = FakeSidecar.settings(false, "unix:/nowhere");
      records =
          records
              .transform(name, BridgeRecordTypeInfo.INSTANCE, new BridgeOperatorFactory(settings))
              .uid(name);
    }
    records.print();
    assertEquals(1, environment.getStreamGraph().getJobGraph().getNumberOfVertices());
  }

  /** What has neither changes with the job's shape, and its state is lost then. */
  @Test
  void everyOperatorHasAUidAndANumberOfKeyGroups() throws Exception {
    Descriptor descriptor =
        Descriptor.read(Programs.ROOT.resolve("tests/corpus/pipeline/good/quickstart.descriptor"));
    StreamExecutionEnvironment environment = StreamExecutionEnvironment.createLocalEnvironment(1);
    JobBuilder.build(environment, descriptor, FlinkSettings.defaults());
    for (StreamNode node : environment.getStreamGraph(false).getStreamNodes()) {
      assertNotNull(node.getTransformationUID(), node.getOperatorName());
    }
    List<Integer> keyGroups = new ArrayList<>();
    for (JobVertex vertex : environment.getStreamGraph().getJobGraph().getVertices()) {
      if (vertex.getName().contains("by_user") || vertex.getName().contains("score")) {
        keyGroups.add(vertex.getMaxParallelism());
      }
    }
    assertEquals(List.of(128), keyGroups.stream().distinct().toList());
  }
}
