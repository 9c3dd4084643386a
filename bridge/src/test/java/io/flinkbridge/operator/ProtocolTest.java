package io.flinkbridge.operator;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import flink_bridge.FlinkBridgeOuterClass.BarrierAck;
import flink_bridge.FlinkBridgeOuterClass.EndAck;
import flink_bridge.FlinkBridgeOuterClass.Error;
import flink_bridge.FlinkBridgeOuterClass.ErrorCode;
import flink_bridge.FlinkBridgeOuterClass.FromWorker;
import flink_bridge.FlinkBridgeOuterClass.Open;
import flink_bridge.FlinkBridgeOuterClass.Record;
import flink_bridge.FlinkBridgeOuterClass.RestoreChunk;
import flink_bridge.FlinkBridgeOuterClass.Results;
import flink_bridge.FlinkBridgeOuterClass.StateDeclaration;
import flink_bridge.FlinkBridgeOuterClass.StateDelta;
import flink_bridge.FlinkBridgeOuterClass.StateEntry;
import flink_bridge.FlinkBridgeOuterClass.StateKind;
import flink_bridge.FlinkBridgeOuterClass.StatePartition;
import flink_bridge.FlinkBridgeOuterClass.ToWorker;
import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.BridgeRecordSerializer;
import io.flinkbridge.record.KeyHash;
import io.flinkbridge.session.SessionException;
import io.flinkbridge.testing.FakeSidecar;
import io.flinkbridge.testing.Harness;
import io.flinkbridge.testing.Segments;
import io.flinkbridge.testing.Sidecar;
import io.grpc.Status;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Predicate;
import net.openhft.hashing.LongHashFunction;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.tasks.mailbox.Mail;
import org.apache.flink.streaming.util.AbstractStreamOperatorTestHarness;
import org.apache.flink.streaming.util.KeyedOneInputStreamOperatorTestHarness;
import org.apache.flink.streaming.util.MockOutput;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * What the operator does when the sidecar is late, lost, or wrong; with a sidecar that is all of
 * that on demand.
 */
@Timeout(300)
final class ProtocolTest {
  private static final byte[] KEY = "key".getBytes(StandardCharsets.UTF_8);

  private static StreamRecord<BridgeRecord> record(String text) {
    return new StreamRecord<>(BridgeRecord.of(text));
  }

  private static FromWorker.Builder answerTo(ToWorker message) {
    return FromWorker.newBuilder().setSeq(message.getSeq());
  }

  private static Results results(String text) {
    return Results.newBuilder()
        .addRecords(Record.newBuilder().setPayload(ByteString.copyFromUtf8(text)))
        .build();
  }

  /** Runs an action in the task's thread, at its next look for mails. */
  private static void mail(
      OneInputStreamOperatorTestHarness<BridgeRecord, BridgeRecord> harness, Runnable action) {
    harness.getTaskMailbox().put(new Mail(action::run, 0, "test"));
  }

  // ---- Barriers ----

  @Test
  void whatIsOutstandingComesOutBeforeTheBarrier() throws Exception {
    List<ToWorker> held = new ArrayList<>();
    AtomicReference<FakeSidecar> self = new AtomicReference<>();
    try (FakeSidecar sidecar =
            new FakeSidecar(
                (message, session) -> {
                  if (message.hasBatch()) {
                    held.add(message);
                    return true;
                  }
                  if (message.hasBarrier()) {
                    held.forEach(batch -> self.get().answer(batch, session));
                  }
                  return false;
                });
        var harness = Harness.of(sidecar.settings(false))) {
      self.set(sidecar);
      harness.open();
      harness.processElement(record("a"));
      harness.processElement(record("b"));
      harness.processElement(record("c")); // waits in the batch: two messages are on their way
      assertEquals(List.of(), Harness.output(harness));
      harness.prepareSnapshotPreBarrier(7);
      assertEquals(List.of("a", "b", "c"), Harness.output(harness));
      harness.snapshot(7, 7);
    }
  }

  @Test
  void aTickThatFallsDueDuringABarrierWaitsForTheSnapshot() throws Exception {
    AtomicReference<Runnable> acknowledge = new AtomicReference<>();
    List<String> story = new CopyOnWriteArrayList<>();
    AtomicReference<Runnable> passTime = new AtomicReference<>();
    try (FakeSidecar sidecar =
            new FakeSidecar(
                (message, session) -> {
                  switch (message.getKindCase()) {
                    case BATCH -> {
                      session.send(
                          answerTo(message)
                              .setResults(FakeSidecar.echo(message.getBatch()))
                              .setNextWakeupMs(100));
                      return true;
                    }
                    case BARRIER -> {
                      acknowledge.set(
                          () ->
                              session.send(
                                  answerTo(message)
                                      .setNextWakeupMs(100)
                                      .setBarrierAck(BarrierAck.newBuilder().setCheckpointId(1))));
                      passTime.get().run();
                      return true;
                    }
                    case TIMER_TICK -> {
                      story.add("tick at " + message.getProcessingTimeMs());
                      session.send(answerTo(message).setResults(results("ticked")));
                      return true;
                    }
                    default -> {
                      return false;
                    }
                  }
                });
        var harness = Harness.of(sidecar.settings(false))) {
      harness.open();
      harness.processElement(record("a"));
      Harness.runUntil(harness, 1);
      assertEquals(1, harness.getProcessingTimeService().getNumActiveTimers());
      passTime.set(
          () ->
              mail(
                  harness,
                  () -> {
                    try {
                      harness.setProcessingTime(150); // the timer fires inside the operator's wait
                    } catch (Exception e) {
                      throw new AssertionError(e);
                    }
                    story.add("due");
                    acknowledge.get().run();
                  }));
      harness.prepareSnapshotPreBarrier(1);
      story.add("barrier");
      harness.snapshot(1, 1);
      story.add("snapshot");
      assertEquals(List.of("a"), Harness.output(harness));
      Harness.runUntil(harness, 2);
      assertEquals(List.of("due", "barrier", "snapshot", "tick at 150"), story);
      assertEquals(List.of("a", "ticked"), Harness.output(harness));
    }
  }

  @Test
  void aCheckpointWhoseSnapshotNeverComesDoesNotHoldUpTheNext() throws Exception {
    try (FakeSidecar sidecar = new FakeSidecar((message, session) -> false);
        var harness = Harness.of(sidecar.settings(false))) {
      harness.open();
      harness.prepareSnapshotPreBarrier(1);
      harness.processElement(record("a"));
      Harness.runUntil(harness, 1);
      Harness.checkpoint(harness, 2);
      Exception e = assertThrows(Exception.class, () -> harness.snapshot(3, 3));
      assertTrue(messages(e).contains("a snapshot without its barrier"), messages(e));
      harness.prepareSnapshotPreBarrier(4);
      harness.endInput();
    }
  }

  /**
   * A task that ends still runs the mails that it has, checkpoints among them, and takes no new
   * ones.
   */
  @Test
  void aBarrierIsAnsweredThoughTheMailboxTakesNothingAnyMore() throws Exception {
    try (FakeSidecar sidecar = new FakeSidecar((message, session) -> false);
        var harness = Harness.of(sidecar.settings(false))) {
      harness.open();
      harness.getTaskMailbox().quiesce();
      harness.processElement(record("a"));
      harness.prepareSnapshotPreBarrier(1);
      assertEquals(List.of("a"), Harness.output(harness));
      harness.snapshot(1, 1);
    }
  }

  @Test
  void anAckOfAnotherCheckpointIsAnError() throws Exception {
    try (FakeSidecar sidecar =
            new FakeSidecar(
                (message, session) -> {
                  if (message.hasBarrier()) {
                    session.send(
                        answerTo(message)
                            .setBarrierAck(BarrierAck.newBuilder().setCheckpointId(99)));
                  }
                  return message.hasBarrier();
                });
        var harness = Harness.of(sidecar.settings(false))) {
      harness.open();
      Exception e = assertThrows(Exception.class, () -> harness.prepareSnapshotPreBarrier(1));
      assertTrue(messages(e).contains("the ack of checkpoint 99 in place of 1"), messages(e));
    }
  }

  /** Answers a message of a kind, and is gone then. */
  private static FakeSidecar.Script goneAfter(
      Predicate<ToWorker> kind, AtomicReference<FakeSidecar> self) {
    return (message, session) -> {
      boolean isLast = kind.test(message);
      if (isLast) {
        self.get().answer(message, session);
        session.end(Status.UNAVAILABLE.withDescription("gone"));
      }
      return isLast;
    };
  }

  @Test
  void whatComesBehindAnAckWaitsForTheSnapshot() throws Exception {
    AtomicReference<FakeSidecar> self = new AtomicReference<>();
    try (FakeSidecar sidecar = new FakeSidecar(goneAfter(ToWorker::hasBarrier, self));
        var harness = Harness.of(sidecar.settings(false))) {
      self.set(sidecar);
      harness.open();
      Harness.checkpoint(harness, 1);
      harness.processElement(record("x"));
      Exception e = assertThrows(Exception.class, harness::endInput);
      assertTrue(messages(e).contains("UNAVAILABLE: gone"), messages(e));
    }
  }

  // ---- The end ----

  @Test
  void drainWaitsForEverythingAndTheSessionStaysOpenForOneMoreSnapshot() throws Exception {
    List<ToWorker> held = new ArrayList<>();
    AtomicReference<FakeSidecar> self = new AtomicReference<>();
    try (FakeSidecar sidecar =
        new FakeSidecar(
            (message, session) -> {
              if (message.hasBatch() || message.hasWatermark()) {
                held.add(message);
                return true;
              }
              if (message.hasEndInput()) {
                held.forEach(one -> self.get().answer(one, session));
                session.send(answerTo(message).setResults(results("last")));
              }
              return false;
            })) {
      self.set(sidecar);
      try (var harness = Harness.of(sidecar.settings(false))) {
        harness.open();
        harness.processElement(record("a"));
        harness.processElement(record("b"));
        harness.processWatermark(Long.MAX_VALUE);
        harness.endInput();
        assertEquals(List.of("a", "b", "W" + Long.MAX_VALUE, "last"), Harness.output(harness));
        harness.getOneInputOperator().finish();
        Harness.checkpoint(harness, 9);
      }
      Sidecar.waitUntil("Close", () -> sidecar.kinds().contains(ToWorker.KindCase.CLOSE));
      assertEquals(
          List.of(
              ToWorker.KindCase.OPEN,
              ToWorker.KindCase.BATCH,
              ToWorker.KindCase.BATCH,
              ToWorker.KindCase.WATERMARK,
              ToWorker.KindCase.END_INPUT,
              ToWorker.KindCase.BARRIER,
              ToWorker.KindCase.CLOSE),
          sidecar.kinds());
    }
  }

  @Test
  void noTickFollowsTheEndOfTheInput() throws Exception {
    AtomicInteger ticks = new AtomicInteger();
    try (FakeSidecar sidecar =
            new FakeSidecar(
                (message, session) -> {
                  if (message.hasTimerTick()) {
                    ticks.incrementAndGet();
                  }
                  if (!message.hasEndInput()) {
                    return false;
                  }
                  session.send(answerTo(message).setResults(Results.getDefaultInstance()));
                  session.send(
                      answerTo(message)
                          .setNextWakeupMs(100)
                          .setEndAck(EndAck.getDefaultInstance()));
                  return true;
                });
        var harness = Harness.of(sidecar.settings(false))) {
      harness.open();
      harness.processElement(record("a"));
      harness.endInput();
      harness.setProcessingTime(200);
      Harness.runMails(harness);
      Harness.checkpoint(harness, 1); // whatever was sent before has been answered by then
      assertEquals(0, ticks.get());
    }
  }

  @Test
  void aStopWithoutDrainTakesTheOutstandingWorkIntoItsSavepoint() throws Exception {
    AtomicReference<FakeSidecar> self = new AtomicReference<>();
    List<ToWorker> held = new ArrayList<>();
    try (FakeSidecar sidecar =
            new FakeSidecar(
                (message, session) -> {
                  if (message.hasBatch()) {
                    held.add(message);
                    return true;
                  }
                  held.forEach(one -> self.get().answer(one, session));
                  held.clear();
                  return false;
                });
        var harness = Harness.of(sidecar.settings(false))) {
      self.set(sidecar);
      harness.open();
      harness.processElement(record("a"));
      harness
          .getProcessingTimeService()
          .quiesce(); // as at EndOfData, which goes downstream with results outstanding
      harness.prepareSnapshotPreBarrier(1);
      harness.snapshotWithLocalState(
          1,
          1,
          org.apache.flink.runtime.checkpoint.SavepointType.suspend(
              org.apache.flink.core.execution.SavepointFormatType.CANONICAL));
      assertEquals(List.of("a"), Harness.output(harness));
    }
  }

  @Test
  void cancelReturnsAtOnceWhileTheWindowIsFull() throws Exception {
    try (FakeSidecar sidecar = new FakeSidecar((message, session) -> message.hasBatch());
        var harness = Harness.of(sidecar.settings(false))) {
      harness.open();
      Thread task = Thread.currentThread();
      Thread canceller =
          new Thread(
              () -> {
                Sidecar.waitUntil("the window to be full", () -> isWaiting(task));
                task.interrupt();
              });
      canceller.start();
      assertThrows(
          InterruptedException.class,
          () -> {
            while (true) {
              harness.processElement(record("x"));
            }
          });
      canceller.join();
    }
  }

  private static boolean isWaiting(Thread thread) {
    return thread.getState() == Thread.State.WAITING
        || thread.getState() == Thread.State.TIMED_WAITING;
  }

  // ---- A sidecar that is not there, is lost, or silent ----

  @Test
  void aSidecarThatNeverComesFailsTheTaskWithWords() throws Exception {
    try (var harness =
        Harness.of(
            FakeSidecar.settings(false, "unix:/nowhere/bridge.sock")
                .with(Segments.waiting(Duration.ofMillis(300), Duration.ofSeconds(5))))) {
      SessionException e = assertThrows(SessionException.class, harness::open);
      assertTrue(
          e.getMessage().contains("no sidecar at unix:/nowhere/bridge.sock for 300 ms; start"),
          e.getMessage());
    }
  }

  @Test
  void anOpenThatIsRefusedFailsTheTaskAtOnce() throws Exception {
    try (FakeSidecar sidecar =
            new FakeSidecar(
                (message, session) -> {
                  session.end(Status.FAILED_PRECONDITION.withDescription("another topology"));
                  return true;
                });
        var harness = Harness.of(sidecar.settings(false))) {
      SessionException e = assertThrows(SessionException.class, harness::open);
      assertTrue(e.getMessage().contains("FAILED_PRECONDITION: another topology"), e.getMessage());
    }
  }

  /** Somebody is there: that is no time of waiting for a sidecar. */
  @Test
  void anOpenThatIsNotAnsweredFailsLikeAnyMessage() throws Exception {
    try (FakeSidecar sidecar = new FakeSidecar((message, session) -> true);
        var harness =
            Harness.of(
                sidecar
                    .settings(false)
                    .with(Segments.waiting(Duration.ofMinutes(1), Duration.ofMillis(200))))) {
      SessionException e = assertThrows(SessionException.class, harness::open);
      assertTrue(e.getMessage().contains("did not answer Open within 200 ms"), e.getMessage());
    }
  }

  @Test
  void whatCannotAnswerOpenFailsTheTask() throws Exception {
    try (FakeSidecar sidecar =
            new FakeSidecar(
                (message, session) -> {
                  session.send(answerTo(message).setResults(results("x")));
                  return true;
                });
        var harness = Harness.of(sidecar.settings(false))) {
      SessionException e = assertThrows(SessionException.class, harness::open);
      assertTrue(e.getMessage().contains("RESULTS in place of OPEN_ACK"), e.getMessage());
    }
  }

  @Test
  void eachTryToOpenHasATokenOfItsOwn() throws Exception {
    OperatorSubtaskState snapshot = snapshotOf(entry(KEY).setValue(value("v")).build());
    AtomicInteger opens = new AtomicInteger();
    try (FakeSidecar sidecar =
            new FakeSidecar(
                List.of(declaration()),
                (message, session) -> {
                  boolean isRefused = message.hasOpen() && opens.incrementAndGet() < 3;
                  if (isRefused) {
                    session.end(Status.UNAVAILABLE);
                  }
                  return isRefused;
                });
        var harness = Harness.of(sidecar.settings(true))) {
      harness.initializeState(snapshot);
      harness.open();
      List<Open> tries =
          sidecar.received.stream().filter(ToWorker::hasOpen).map(ToWorker::getOpen).toList();
      assertEquals(List.of(1L, 1L, 1L), tries.stream().map(Open::getRestoredEntries).toList());
      assertEquals(3, tries.stream().map(Open::getOpenToken).distinct().count());
    }
  }

  @Test
  void aLostSidecarFailsTheTaskWithWhatItLastSaid() throws Exception {
    try (FakeSidecar sidecar =
            new FakeSidecar(
                (message, session) -> {
                  if (message.hasBatch()) {
                    session.send(
                        answerTo(message)
                            .setError(
                                Error.newBuilder()
                                    .setCode(ErrorCode.ERROR_STEP)
                                    .setFatal(true)
                                    .setSeq(message.getSeq())
                                    .setRecord(3)
                                    .setStep("score")
                                    .setMessage("no number")));
                    session.end(Status.INTERNAL.withDescription("a step failed"));
                  }
                  return message.hasBatch();
                });
        var harness = Harness.of(sidecar.settings(false))) {
      harness.open();
      harness.processElement(record("x"));
      Exception e =
          assertThrows(Exception.class, harness::endInput, "the wait for answers ends, too");
      String said = messages(e);
      assertTrue(said.contains("INTERNAL: a step failed"), said);
      assertTrue(
          said.contains("ERROR_STEP in step \"score\" at record 3 of message 2: no number"), said);
      assertTrue(said.contains("segment \"fake\" (1/1)"), said);
    }
  }

  /**
   * The task cannot look: it waits within its own output, as for a sink that does not take any
   * more.
   */
  @Test
  void aLostSidecarFailsATaskThatIsBlocked() throws Exception {
    AtomicReference<FakeSidecar> self = new AtomicReference<>();
    try (FakeSidecar sidecar = new FakeSidecar(goneAfter(ToWorker::hasBatch, self));
        var harness =
            new OneInputStreamOperatorTestHarness<>(
                new BridgeOperatorFactory(sidecar.settings(false)), 128, 1, 0)) {
      self.set(sidecar);
      harness.getEnvironment().setExpectedExternalFailureCause(SessionException.class);
      harness.setOutputCreator(
          serializer ->
              new MockOutput<>(new ArrayList<>()) {
                @Override
                public void collect(StreamRecord<BridgeRecord> record) {
                  Sidecar.waitUntil(
                      "the failure",
                      () -> harness.getEnvironment().getActualExternalFailureCause().isPresent());
                }
              });
      harness.setup(BridgeRecordSerializer.INSTANCE);
      harness.open();
      harness.processElement(record("x"));
      Exception e = assertThrows(Exception.class, harness::endInput);
      assertTrue(messages(e).contains("gone"), messages(e));
      assertTrue(
          messages(harness.getEnvironment().getActualExternalFailureCause().get())
              .contains("UNAVAILABLE: gone"));
    }
  }

  @Test
  void aSilentSidecarFailsTheTaskInTheEnd() throws Exception {
    try (FakeSidecar sidecar = new FakeSidecar((message, session) -> !message.hasOpen());
        var harness =
            Harness.of(
                sidecar
                    .settings(false)
                    .with(Segments.waiting(Duration.ofMinutes(1), Duration.ofSeconds(5))))) {
      harness.open(); // within that time, too
      harness.getProcessingTimeService().quiesce(); // Flink's timers do not fire any more
      harness.processElement(record("x"));
      Exception e = assertThrows(Exception.class, harness::endInput);
      assertTrue(messages(e).contains("has not answered for 5000 ms"), messages(e));
    }
  }

  @Test
  void anErrorThatIsNotFatalIsNoEnd() throws Exception {
    try (FakeSidecar sidecar =
            new FakeSidecar(
                (message, session) -> {
                  if (message.hasBatch()) {
                    session.send(
                        answerTo(message).setError(Error.newBuilder().setMessage("a warning")));
                  }
                  return false;
                });
        var harness = Harness.of(sidecar.settings(false))) {
      harness.open();
      harness.processElement(record("x"));
      harness.endInput();
      assertEquals(List.of("x"), Harness.output(harness));
    }
  }

  @Test
  void anAnswerToAnotherMessageIsAnError() throws Exception {
    try (FakeSidecar sidecar =
            new FakeSidecar(
                (message, session) -> {
                  if (message.hasBatch()) {
                    session.send(FromWorker.newBuilder().setSeq(77).setResults(results("x")));
                  }
                  return message.hasBatch();
                });
        var harness = Harness.of(sidecar.settings(false))) {
      harness.open();
      harness.processElement(record("x"));
      Exception e = assertThrows(Exception.class, harness::endInput);
      assertTrue(messages(e).contains("an answer to message 77 in place of 2"), messages(e));
    }
  }

  @Test
  void resultsInPartsAreOneAnswer() throws Exception {
    try (FakeSidecar sidecar =
            new FakeSidecar(
                (message, session) -> {
                  if (message.hasBatch()) {
                    session.send(
                        answerTo(message).setResults(results("1").toBuilder().setMore(true)));
                    session.send(
                        answerTo(message).setResults(results("2").toBuilder().setMore(true)));
                    session.send(answerTo(message).setResults(results("3")));
                  }
                  return message.hasBatch();
                });
        var harness = Harness.of(sidecar.settings(false))) {
      harness.open();
      harness.processElement(record("x"));
      harness.processWatermark(5);
      harness.endInput();
      assertEquals(List.of("1", "2", "3", "W5"), Harness.output(harness));
    }
  }

  @Test
  void aRecordThatIsTooLargeFailsWithBothSizes() throws Exception {
    try (FakeSidecar sidecar = new FakeSidecar((message, session) -> false);
        var harness = Harness.of(sidecar.settings(false))) {
      harness.open();
      Exception e =
          assertThrows(Exception.class, () -> harness.processElement(record("x".repeat(2 << 20))));
      assertTrue(e.getMessage().contains("the sidecar takes 1048512"), e.getMessage());
    }
  }

  // ---- State ----

  private static StateDeclaration declaration() {
    return StateDeclaration.newBuilder()
        .setStep("s")
        .setName("v")
        .setKind(StateKind.STATE_VALUE)
        .setFormatVersion(1)
        .build();
  }

  private static StateEntry.Builder entry(byte[] key) {
    int hash = KeyHash.of(key);
    return StateEntry.newBuilder()
        .setKey(ByteString.copyFrom(key))
        .setKeyHash(hash)
        .setKeyGroup(KeyHash.groupOf(hash, 128));
  }

  private static FromWorker.Builder delta(ToWorker message, StateEntry... entries) {
    StateDelta delta = StateDelta.newBuilder().addAllEntries(List.of(entries)).build();
    return answerTo(message)
        .setStateDelta(
            delta.toBuilder().setChecksum(LongHashFunction.xx3().hashBytes(delta.toByteArray())));
  }

  /**
   * A value of 3 MB comes in parts over three messages, goes into a checkpoint as one, and back in
   * parts that fit into messages.
   */
  @Test
  void largeValuesComeAndGoInParts() throws Exception {
    byte[] value = new byte[3_000_000];
    new Random(1).nextBytes(value);
    OperatorSubtaskState snapshot;
    try (FakeSidecar sidecar =
            new FakeSidecar(
                List.of(declaration()),
                (message, session) -> {
                  if (message.hasBarrier()) {
                    for (int part = 0; part < 3; part++) {
                      ByteString bytes = ByteString.copyFrom(value, part * 1_000_000, 1_000_000);
                      session.send(
                          delta(message, entry(KEY).setValue(bytes).setMore(part < 2).build()));
                    }
                  }
                  return false;
                });
        var harness = Harness.of(sidecar.settings(true))) {
      harness.open();
      snapshot = Harness.checkpoint(harness, 1);
    }
    try (FakeSidecar sidecar =
            new FakeSidecar(List.of(declaration()), (message, session) -> false);
        var harness = Harness.of(sidecar.settings(true))) {
      harness.setRestoredCheckpointId(1);
      harness.initializeState(snapshot);
      harness.open();
      ByteArrayOutputStream joined = new ByteArrayOutputStream();
      int parts = 0;
      for (ToWorker message : sidecar.received) {
        assertTrue(
            message.getSerializedSize() <= 1 << 20, "a message of " + message.getSerializedSize());
        if (message.hasRestoreChunk()) {
          RestoreChunk chunk = message.getRestoreChunk();
          byte[] entries = chunk.toBuilder().clearChecksum().build().toByteArray();
          assertEquals(LongHashFunction.xx3().hashBytes(entries), chunk.getChecksum());
          for (StateEntry part : chunk.getEntriesList()) {
            assertEquals(ByteString.copyFrom(KEY), part.getKey());
            part.getValue().writeTo(joined);
            parts++;
            assertEquals(joined.size() < value.length, part.getMore());
          }
        }
      }
      assertTrue(parts > 1);
      assertArrayEquals(value, joined.toByteArray());
      assertEquals(1, sidecar.received.get(0).getOpen().getRestoredCheckpoint());
      assertEquals(
          List.of(declaration()), sidecar.received.get(0).getOpen().getStateManifestList());
      assertEquals(
          1, sidecar.received.get(sidecar.received.size() - 1).getRestoreEnd().getEntries());
    }
  }

  /** A checkpoint of one state that has these entries. */
  private static OperatorSubtaskState snapshotOf(StateEntry... entries) throws Exception {
    try (FakeSidecar sidecar = new FakeSidecar(List.of(declaration()), atBarriers(entries));
        var harness = Harness.of(sidecar.settings(true))) {
      harness.open();
      return Harness.checkpoint(harness, 1);
    }
  }

  @Test
  void onlyItsAckCanAnswerARestore() throws Exception {
    OperatorSubtaskState snapshot = snapshotOf(entry(KEY).setValue(value("v")).build());
    try (FakeSidecar sidecar =
            new FakeSidecar(
                List.of(declaration()),
                (message, session) -> {
                  if (message.hasRestoreEnd()) {
                    session.send(answerTo(message).setResults(results("early")));
                  }
                  return false;
                });
        var harness = Harness.of(sidecar.settings(true))) {
      harness.initializeState(snapshot);
      Exception e = assertThrows(Exception.class, harness::open);
      assertTrue(messages(e).contains("RESULTS in place of RESTORE_ACK"), messages(e));
    }
  }

  @Test
  void anErrorDuringARestoreThatIsNotFatalIsNoEnd() throws Exception {
    OperatorSubtaskState snapshot = snapshotOf(entry(KEY).setValue(value("v")).build());
    try (FakeSidecar sidecar =
            new FakeSidecar(
                List.of(declaration()),
                (message, session) -> {
                  if (message.hasRestoreEnd()) {
                    session.send(
                        answerTo(message).setError(Error.newBuilder().setMessage("a warning")));
                  }
                  return false;
                });
        var harness = Harness.of(sidecar.settings(true))) {
      harness.initializeState(snapshot);
      harness.open();
      assertEquals(List.of("s=v"), restored(sidecar));
      harness.endInput();
    }
  }

  private static StateDeclaration declaration(String step, StatePartition partition) {
    return declaration().toBuilder().setStep(step).setPartition(partition).build();
  }

  /** A script that sends these entries at each barrier. */
  private static FakeSidecar.Script atBarriers(StateEntry... entries) {
    return (message, session) -> {
      if (message.hasBarrier() && entries.length > 0) {
        session.send(delta(message, entries));
      }
      return false;
    };
  }

  /** What a session was given to restore: {@code step=value}, sorted. */
  private static List<String> restored(FakeSidecar sidecar) {
    List<StateDeclaration> manifest = sidecar.received.get(0).getOpen().getStateManifestList();
    return sidecar.received.stream()
        .flatMap(message -> message.getRestoreChunk().getEntriesList().stream())
        .map(one -> manifest.get(one.getState()).getStep() + "=" + one.getValue().toStringUtf8())
        .sorted()
        .toList();
  }

  private static ByteString value(String text) {
    return ByteString.copyFromUtf8(text);
  }

  /**
   * Numbers of states move when code changes; what is of a state that is gone is sent once more,
   * and then forgotten.
   */
  @Test
  void statesAreKnownByNameAndDroppedOnesGo() throws Exception {
    StateDeclaration a = declaration("a", StatePartition.STATE_BY_KEY);
    StateDeclaration b = declaration("b", StatePartition.STATE_BY_KEY);
    StateDeclaration c = declaration("c", StatePartition.STATE_BY_KEY);
    OperatorSubtaskState snapshot;
    try (FakeSidecar sidecar =
            new FakeSidecar(
                List.of(a, b),
                atBarriers(
                    entry(KEY).setState(0).setValue(value("of a")).build(),
                    entry(KEY).setState(1).setValue(value("of b")).build()));
        var harness = Harness.of(sidecar.settings(true))) {
      harness.open();
      snapshot = Harness.checkpoint(harness, 1);
    }
    try (FakeSidecar sidecar =
            new FakeSidecar(
                List.of(c, b), atBarriers(entry(KEY).setState(0).setValue(value("of c")).build()));
        var harness = Harness.of(sidecar.settings(true))) {
      harness.initializeState(snapshot);
      harness.open();
      assertEquals(List.of("a=of a", "b=of b"), restored(sidecar));
      snapshot = Harness.checkpoint(harness, 2);
    }
    try (FakeSidecar sidecar = new FakeSidecar(List.of(b, c), atBarriers());
        var harness = Harness.of(sidecar.settings(true))) {
      harness.initializeState(snapshot);
      harness.open();
      assertEquals(List.of("b=of b", "c=of c"), restored(sidecar));
    }
  }

  @Test
  void splitListsAreDealtOutAndUnionListsGoToAll() throws Exception {
    List<StateDeclaration> manifest =
        List.of(
            declaration("s", StatePartition.STATE_SPLIT),
            declaration("u", StatePartition.STATE_UNION));
    List<OperatorSubtaskState> snapshots = new ArrayList<>();
    for (int subtask = 0; subtask < 2; subtask++) {
      StateEntry.Builder piece =
          StateEntry.newBuilder().setSubKey(value("0")).setValue(value("of " + subtask));
      try (FakeSidecar sidecar =
              new FakeSidecar(
                  manifest, atBarriers(piece.setState(0).build(), piece.setState(1).build()));
          var harness = Harness.of(sidecar.settings(false), 2, subtask)) {
        harness.open();
        snapshots.add(Harness.checkpoint(harness, 1));
      }
    }
    OperatorSubtaskState all =
        AbstractStreamOperatorTestHarness.repackageState(
            snapshots.toArray(OperatorSubtaskState[]::new));
    List<String> splits = new ArrayList<>();
    for (int subtask = 0; subtask < 3; subtask++) {
      try (FakeSidecar sidecar = new FakeSidecar(manifest, atBarriers());
          var harness = Harness.of(sidecar.settings(false), 3, subtask)) {
        harness.initializeState(
            AbstractStreamOperatorTestHarness.repartitionOperatorState(all, 128, 2, 3, subtask));
        harness.open();
        List<String> own = restored(sidecar);
        assertEquals(
            List.of("u=of 0", "u=of 1"), own.stream().filter(one -> one.startsWith("u")).toList());
        own.stream().filter(one -> one.startsWith("s")).forEach(splits::add);
        OperatorSubtaskState again = Harness.checkpoint(harness, 2);
        assertEquals(
            0,
            again.getManagedOperatorState().stream()
                .flatMap(handle -> handle.getStateNameToPartitionOffsets().entrySet().stream())
                .filter(one -> !one.getKey().equals("bridge-manifest"))
                .mapToInt(one -> one.getValue().getOffsets().length)
                .sum(),
            "entries without keys come anew");
      }
    }
    assertEquals(List.of("s=of 0", "s=of 1"), splits.stream().sorted().toList());
  }

  @Test
  void anotherNumberOfKeyGroupsIsRefused() throws Exception {
    try (FakeSidecar sidecar = new FakeSidecar((message, session) -> false);
        var harness =
            new KeyedOneInputStreamOperatorTestHarness<Integer, BridgeRecord, BridgeRecord>(
                new BridgeOperatorFactory(sidecar.settings(true)),
                record -> record.keyHash,
                Types.INT,
                64,
                1,
                0)) {
      Exception e = assertThrows(Exception.class, harness::open);
      assertTrue(messages(e).contains("128 key groups and its operator 64"), messages(e));
    }
  }

  @Test
  void aDamagedDeltaFailsTheTask() throws Exception {
    try (FakeSidecar sidecar =
            new FakeSidecar(
                List.of(declaration()),
                (message, session) -> {
                  if (message.hasBarrier()) {
                    session.send(
                        answerTo(message)
                            .setStateDelta(
                                StateDelta.newBuilder().addEntries(entry(KEY)).setChecksum(1)));
                  }
                  return false;
                });
        var harness = Harness.of(sidecar.settings(true))) {
      harness.open();
      Exception e = assertThrows(Exception.class, () -> harness.prepareSnapshotPreBarrier(1));
      assertTrue(messages(e).contains("checksum"), messages(e));
    }
  }

  @Test
  void anEntryOfAnotherKeyGroupFailsTheTask() throws Exception {
    try (FakeSidecar sidecar =
            new FakeSidecar(
                List.of(declaration()),
                (message, session) -> {
                  if (message.hasBarrier()) {
                    session.send(
                        delta(
                            message, entry(KEY).setKeyGroup(entry(KEY).getKeyGroup() + 1).build()));
                  }
                  return false;
                });
        var harness = Harness.of(sidecar.settings(true))) {
      harness.open();
      Exception e = assertThrows(Exception.class, () -> harness.prepareSnapshotPreBarrier(1));
      assertTrue(messages(e).contains("key group"), messages(e));
    }
  }

  /** All messages of an exception and its causes. */
  private static String messages(Throwable e) {
    return e == null ? "" : e.getMessage() + "\n" + messages(e.getCause());
  }
}
