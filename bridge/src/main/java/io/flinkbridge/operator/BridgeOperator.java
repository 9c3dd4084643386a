package io.flinkbridge.operator;

import flink_bridge.FlinkBridgeOuterClass.BarrierAck;
import flink_bridge.FlinkBridgeOuterClass.Limits;
import flink_bridge.FlinkBridgeOuterClass.Open;
import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.session.Answer;
import io.flinkbridge.session.Batch;
import io.flinkbridge.session.ProtocolException;
import io.flinkbridge.session.Session;
import io.flinkbridge.session.SessionException;
import io.flinkbridge.session.Timers;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.List;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;
import org.apache.flink.api.common.TaskInfo;
import org.apache.flink.api.common.operators.MailboxExecutor;
import org.apache.flink.runtime.checkpoint.CheckpointOptions;
import org.apache.flink.runtime.checkpoint.SavepointType;
import org.apache.flink.runtime.event.WatermarkEvent;
import org.apache.flink.runtime.state.CheckpointStreamFactory;
import org.apache.flink.runtime.state.KeyGroupRange;
import org.apache.flink.runtime.state.KeyGroupRangeAssignment;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.runtime.state.StateSnapshotContext;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.operators.OperatorSnapshotFutures;
import org.apache.flink.streaming.api.operators.StreamOperatorParameters;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.LatencyMarker;
import org.apache.flink.streaming.runtime.streamrecord.RecordAttributes;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.apache.flink.util.OutputTag;
import org.apache.flink.util.function.ThrowingRunnable;
import org.jspecify.annotations.Nullable;

/**
 * One subtask of a segment: its logic runs in the sidecar, over one session.
 *
 * <p><b>One sequence.</b> Records, watermarks, statuses and markers go through {@link #inFlight} in
 * the order in which they came. The sidecar answers in the order in which it was asked; when the
 * last answer to a message is there, what stands behind it and needs no answer goes on, too. So
 * nothing overtakes anything.
 *
 * <p><b>Who runs when.</b> All of this belongs to the task's thread. gRPC's threads post a mail
 * that runs {@link #drain}. Mails run between two elements, and inside {@link
 * MailboxExecutor#yield}, which an element waits in when the window is full, and a barrier until
 * its ack. Timers are mails, too; therefore what they do ({@link #sendDue}) never waits. What
 * stands behind this operator in its chain runs no mails of this one while it waits itself: Flink
 * gives it those of later operators alone.
 *
 * <p><b>Barriers.</b> From {@code Barrier} until the snapshot is taken nothing is sent: its results
 * would leave before Flink's barrier, and its changes of state would be about more than the
 * position in the input. What comes behind the ack, an end of the session most of all, is looked at
 * once the snapshot is taken.
 */
final class BridgeOperator extends AbstractStreamOperator<BridgeRecord>
    implements OneInputStreamOperator<BridgeRecord, BridgeRecord>, BoundedOneInput {
  private static final long serialVersionUID = 1L;

  /**
   * Messages that are sent however little they carry; with one at work and one behind it the
   * sidecar never waits for the next.
   */
  private static final int MESSAGES_AT_ONCE = 2;

  /** The Session contract that this speaks; the sidecar refuses another one in words. */
  private static final int PROTOCOL_VERSION = 2;

  /** What a message takes beside its records: see the sidecar's own default of the record limit. */
  private static final int MESSAGE_OVERHEAD = 64;

  /** How long to wait for the sidecar before the next look at the mailbox. */
  private static final Duration AWAIT_NEWS = Duration.ofMillis(5);

  /** Nothing is in flight. */
  private static final long NEVER = Long.MIN_VALUE;

  /**
   * An answer that takes longer than this is counted as a pause: a worker's end, a reload, a slow
   * step.
   */
  private static final long PAUSE_NANOS = 250_000_000;

  /** Where the operator is in a checkpoint. */
  private enum Cut {
    NONE,
    SENT,
    ANSWERED
  }

  /** What was sent, or waits in the sequence without being sent (seq 0). */
  private record InFlight(
      long seq, Kind kind, int records, int bytes, long sentAt, @Nullable Object element) {
    private enum Kind {
      BATCH,
      WATERMARK,
      STATUS,
      TICK,
      BARRIER,
      END,
      MARKER,
      ATTRIBUTES,
      EVENT
    }
  }

  private final SegmentSettings settings;
  private final SegmentSettings.Tuning tuning;
  private final MailboxExecutor mailbox;
  private final List<OutputTag<BridgeRecord>> tags;
  private final ArrayDeque<InFlight> inFlight = new ArrayDeque<>();
  private final InFlightWindow window;
  private final Batch batch;

  private transient Session session;
  private transient StateKeeper state;
  private transient BridgeMetrics metric;
  private transient @Nullable ScheduledFuture<?> watch;
  private volatile long oldestSent = NEVER;
  private int batchBytesMax;
  private int recordBytesMax;
  private long lastWatermark = Long.MIN_VALUE;
  private Cut cut = Cut.NONE;
  private long cutCheckpoint;
  private volatile boolean isDraining;
  private long lastAnswered = NEVER;
  private boolean isStopping;
  private long nextWakeup;
  private boolean isTickDue;
  private boolean isTickInFlight;
  private @Nullable ScheduledFuture<?> timer;
  private long timerAt;

  BridgeOperator(StreamOperatorParameters<BridgeRecord> parameters, SegmentSettings settings) {
    super(parameters);
    this.settings = settings;
    this.tuning = settings.tuning();
    this.mailbox = parameters.getMailboxExecutor();
    this.tags =
        settings.routes().stream().map(route -> Routes.tag(settings.stepName(), route)).toList();
    this.window = new InFlightWindow(tuning.inFlightTime(), tuning.inFlightBytes());
    this.batch = new Batch(tuning.batchBytes(), settings.keyed() ? settings.maxParallelism() : 0);
  }

  // ---- The beginning ----

  @Override
  public void initializeState(StateInitializationContext context) throws Exception {
    super.initializeState(context);
    state =
        new StateKeeper(
            context, settings.keyed() ? getKeyedStateBackend() : null, settings.maxParallelism());
  }

  @Override
  public void open() throws Exception {
    super.open();
    metric = new BridgeMetrics(getMetricGroup());
    SessionOpener opener =
        new SessionOpener(
            describe(), settings.address(), tuning.connectTimeout(), tuning.answerTimeout());
    metric.registerGauges(opener, window);
    Open.Builder request = openRequest();
    SessionOpener.Opened opened =
        opener.open(
            () -> request.setOpenToken(JvmIdentity.nextToken()).build(),
            getProcessingTimeService()::getCurrentProcessingTime);
    session = opened.session();
    Limits limits = opened.ack().getLimits();
    recordBytesMax =
        Math.min(limits.getMaxRecordBytes(), limits.getMaxMessageBytes() - MESSAGE_OVERHEAD);
    batchBytesMax = Math.min(tuning.batchBytes(), limits.getMaxMessageBytes() - MESSAGE_OVERHEAD);
    try {
      state.opened(
          session,
          opened.ack().getStateManifestList(),
          limits.getMaxMessageBytes() - MESSAGE_OVERHEAD,
          tuning.answerTimeout());
    } catch (SessionException | ProtocolException e) {
      throw new SessionException(describe() + ": " + e.getMessage());
    }
    if (session.lastError() != null) {
      tellError();
    }
    nextWakeup = state.nextWakeup();
    metric.restoredEntries.inc(state.restoredEntries());
    watch();
    session.setWakeup(this::postDrain);
    scheduleTick();
  }

  /**
   * Has another thread look at the session now and then: the task's own may wait for answers that
   * do not come, or for its outputs to move, and would not learn of a lost sidecar before they do.
   */
  private void watch() {
    long period = Math.min(TimeUnit.SECONDS.toNanos(1), tuning.answerTimeout().toNanos() / 4 + 1);
    watch =
        Timers.acquire()
            .scheduleWithFixedDelay(this::lookAtSession, period, period, TimeUnit.NANOSECONDS);
  }

  private void lookAtSession() {
    if (isDraining) {
      String loss = session.loss();
      if (loss != null) {
        getContainingTask()
            .getEnvironment()
            .failExternally(new SessionException(describe() + ": " + loss));
      }
    } else if (oldestSent != NEVER && !session.hasInput()) {
      long silence = System.nanoTime() - Math.max(oldestSent, session.lastArrival());
      if (silence > tuning.answerTimeout().toNanos()
          && !post(this::timedOut, "a sidecar that does not answer")) {
        getContainingTask().getEnvironment().failExternally(silence());
      }
    }
  }

  private void timedOut() throws SessionException {
    throw silence();
  }

  private SessionException silence() {
    return new SessionException(
        describe()
            + ": the sidecar at "
            + settings.address()
            + " has not answered for "
            + tuning.answerTimeout().toMillis()
            + " ms");
  }

  private String describe() {
    TaskInfo info = getRuntimeContext().getTaskInfo();
    return String.format(
        "segment \"%s\" (%d/%d)",
        settings.stepName(), info.getIndexOfThisSubtask() + 1, info.getNumberOfParallelSubtasks());
  }

  /** What all tries to open have in common. */
  private Open.Builder openRequest() {
    TaskInfo info = getRuntimeContext().getTaskInfo();
    KeyGroupRange groups =
        KeyGroupRangeAssignment.computeKeyGroupRangeForOperatorIndex(
            settings.maxParallelism(),
            info.getNumberOfParallelSubtasks(),
            info.getIndexOfThisSubtask());
    return Open.newBuilder()
        .setProtocolVersion(PROTOCOL_VERSION)
        .setJob(getRuntimeContext().getJobInfo().getJobId().toHexString())
        .setPipeline(settings.pipeline())
        .setSegment(settings.id())
        .setTopologyHash(settings.topologyHash())
        .setAllocationId(info.getAllocationIDAsString())
        .setAttemptId(getContainingTask().getEnvironment().getExecutionId().toString())
        .setSubtask(info.getIndexOfThisSubtask())
        .setParallelism(info.getNumberOfParallelSubtasks())
        .setMaxParallelism(settings.maxParallelism())
        .setKeyGroupFirst(groups.getStartKeyGroup())
        .setKeyGroupLast(groups.getEndKeyGroup())
        .setRestoredCheckpoint(state.restoredCheckpoint())
        .addAllStateManifest(state.restoredManifest())
        .setRestoredEntries(state.expectedEntries())
        .setJvmUuid(JvmIdentity.uuid());
  }

  // ---- What comes from upstream ----

  @Override
  public void processElement(StreamRecord<BridgeRecord> element) throws Exception {
    resume();
    BridgeRecord record = element.getValue();
    long timestamp = element.hasTimestamp() ? element.getTimestamp() : record.timestamp;
    int size = batch.sizeOf(record, timestamp);
    if (size > recordBytesMax) {
      throw new SessionException(
          describe()
              + ": a record of "
              + size
              + " bytes; the sidecar takes "
              + recordBytesMax
              + " (see its --record-max)");
    }
    if (settings.keyed() && record.key == null) {
      throw new IllegalStateException(
          describe() + " is partitioned by key, and a record without one has come");
    }
    if (batch.records() > 0 && batch.bytes() + Batch.sizeWithHead(size) > batchBytesMax) {
      flush();
    }
    batch.add(record, timestamp, size);
    if (batch.records() >= window.batchRecords() || batch.bytes() >= batchBytesMax) {
      flush();
    } else if (window.messages() < MESSAGES_AT_ONCE && canSend()) {
      sendBatch();
    }
  }

  @Override
  public void processWatermark(Watermark mark) throws Exception {
    if (mark.getTimestamp() > lastWatermark) {
      resume();
      flush();
      awaitRoom();
      lastWatermark = mark.getTimestamp();
      sent(session.sendWatermark(lastWatermark), InFlight.Kind.WATERMARK, mark);
    }
  }

  @Override
  public void processWatermarkStatus(WatermarkStatus status) throws Exception {
    resume();
    flush();
    awaitRoom();
    sent(session.sendWatermarkStatus(status.isIdle()), InFlight.Kind.STATUS, status);
  }

  @Override
  public void processLatencyMarker(LatencyMarker marker) throws Exception {
    queue(InFlight.Kind.MARKER, marker);
  }

  @Override
  public void processRecordAttributes(RecordAttributes attributes) throws Exception {
    queue(InFlight.Kind.ATTRIBUTES, attributes);
  }

  @Override
  public void processWatermark(WatermarkEvent event) throws Exception {
    queue(InFlight.Kind.EVENT, event);
  }

  /** Puts what the sidecar need not see behind all that came before it. */
  private void queue(InFlight.Kind kind, Object element) throws Exception {
    resume();
    flush();
    inFlight.add(new InFlight(0, kind, 0, 0, 0, element));
    releaseHead();
  }

  @Override
  public void endInput() throws Exception {
    resume();
    flush();
    isStopping = true;
    sent(session.sendEndInput(), InFlight.Kind.END, null);
    while (!inFlight.isEmpty()) {
      await();
    }
  }

  /** The key of Flink's state is a bucket, set where state is written; records need none. */
  @Override
  @SuppressWarnings("rawtypes")
  public void setKeyContextElement1(StreamRecord record) {}

  @Override
  public boolean hasKeyContext1() {
    return false;
  }

  // ---- Sending ----

  /**
   * Something comes, so if a barrier still waits for its snapshot, that has failed: its checkpoint
   * is over.
   */
  private void resume() {
    if (cut == Cut.ANSWERED) {
      cut = Cut.NONE;
      postDrain();
    }
  }

  private boolean canSend() {
    return cut == Cut.NONE && window.hasRoom() && session.isReady();
  }

  private void awaitRoom() throws Exception {
    while (!canSend()) {
      await();
    }
  }

  /**
   * Waits for a while until something happens: a mail, or news from the sidecar. Those are not left
   * to their mail alone, because a task that ends takes no more mails, but still runs those that it
   * has; a checkpoint's trigger may be one of them, and its barrier has to be answered.
   */
  private void await() throws Exception {
    if (!mailbox.tryYield()) {
      drain(AWAIT_NEWS);
    }
  }

  /** Sends what is in the batch; waits until there is room for it. */
  private void flush() throws Exception {
    if (batch.records() > 0) {
      awaitRoom();
      if (batch.records() > 0) { // a mail may have sent it meanwhile
        sendBatch();
      }
    }
  }

  private void sendBatch() {
    int records = batch.records();
    int bytes = batch.bytes();
    metric.batches.inc();
    metric.batchRecords.update(records);
    metric.bytesIn.inc(bytes);
    sent(session.send(batch), InFlight.Kind.BATCH, records, bytes, null);
  }

  /** Takes note of a message that is no batch. */
  private void sent(long seq, InFlight.Kind kind, @Nullable Object element) {
    sent(seq, kind, 1, MESSAGE_OVERHEAD, element);
  }

  private void sent(
      long seq, InFlight.Kind kind, int records, int bytes, @Nullable Object element) {
    long now = System.nanoTime();
    if (inFlight.isEmpty()) {
      oldestSent = now;
    }
    inFlight.add(new InFlight(seq, kind, records, bytes, now, element));
    window.sent(seq, records, bytes);
  }

  /** Sends what has waited for its time or for room, as far as that goes without waiting. */
  private void sendDue() {
    if (isStopping) {
      return; // what a tick made now would be behind the last snapshot, or the end of the input
    }
    if (isTickDue && !isTickInFlight && canSend()) {
      metric.ticks.inc();
      isTickDue = false;
      isTickInFlight = true;
      sent(session.sendTimerTick(), InFlight.Kind.TICK, null);
    }
    if (batch.records() > 0 && window.messages() < MESSAGES_AT_ONCE && canSend()) {
      sendBatch();
    }
  }

  // ---- What comes from the sidecar ----

  /** Any thread: has the task look into the inbox. */
  private void postDrain() {
    post(this::drain, "answers of the sidecar");
  }

  /** Any thread: has the task's run something; false if the task takes nothing any more. */
  private boolean post(ThrowingRunnable<Exception> mail, String description) {
    try {
      mailbox.execute(mail, description);
      return true;
    } catch (RejectedExecutionException e) {
      LOG.debug("{} come too late: the task has ended", description);
      return false;
    }
  }

  /** Takes what has come. */
  private void drain() throws Exception {
    drain(Duration.ZERO);
  }

  /** The same, but waits for so long for something to come. */
  private void drain(Duration patience) throws Exception {
    try {
      Answer answer = patience.isZero() ? session.poll() : session.await(patience);
      isDraining = true;
      while (answer != null) {
        take(answer);
        answer = cut == Cut.ANSWERED ? null : session.poll();
      }
    } catch (SessionException | ProtocolException e) {
      throw new SessionException(describe() + ": " + e.getMessage());
    } finally {
      isDraining = false;
    }
    sendDue();
  }

  private void take(Answer answer) throws Exception {
    switch (answer.kind()) {
      case RESULTS -> {
        InFlight head = expect(answer);
        metric.bytesOut.inc(answer.size());
        emit(answer);
        if (!answer.hasMore()
            && head.kind != InFlight.Kind.END
            && head.kind != InFlight.Kind.BARRIER) {
          answered(head, answer);
        }
      }
      case BARRIER_ACK -> {
        InFlight head = expect(answer, InFlight.Kind.BARRIER);
        long checkpoint = answer.parse(BarrierAck.parser()).getCheckpointId();
        if (checkpoint != cutCheckpoint) {
          throw new ProtocolException(
              "the ack of checkpoint " + checkpoint + " in place of " + cutCheckpoint);
        }
        cut = Cut.ANSWERED;
        answered(head, answer);
      }
      case END_ACK -> answered(expect(answer, InFlight.Kind.END), answer);
      case ERROR -> tellError();
      case STATE_DELTA -> {
        expect(answer);
        metric.deltaEntries.inc(state.apply(answer));
        metric.deltaBytes.inc(answer.size());
      }
      case OPEN_ACK, RESTORE_ACK ->
          throw new ProtocolException("a " + answer.kind() + " where none is expected");
    }
  }

  /** An error that is not fatal, or not yet: the end of the stream would follow. */
  private void tellError() {
    metric.errors.inc();
    LOG.warn("{}: the sidecar says {}", describe(), Session.describe(session.lastError()));
  }

  private InFlight expect(Answer answer) {
    InFlight head = inFlight.peek();
    if (head == null || head.seq != answer.seq()) {
      throw new ProtocolException(
          "an answer to message "
              + answer.seq()
              + " in place of "
              + (head == null ? "none" : String.valueOf(head.seq)));
    }
    return head;
  }

  private InFlight expect(Answer answer, InFlight.Kind kind) {
    InFlight head = expect(answer);
    if (head.kind != kind) {
      throw new ProtocolException(answer.kind() + " for a " + head.kind);
    }
    return head;
  }

  /**
   * Emits the records of a Results. Each gets an element of its own: it is cheaper to make one than
   * to store a new record into an old one, which a collector that is generational has to be told
   * of, and whoever stands behind this operator and stores into it as well.
   */
  private void emit(Answer answer) {
    for (BridgeRecord record : answer.records()) {
      StreamRecord<BridgeRecord> element =
          record.timestamp == BridgeRecord.NO_TIMESTAMP
              ? new StreamRecord<>(record)
              : new StreamRecord<>(record, record.timestamp);
      if (tags.isEmpty()) {
        output.collect(element);
      } else if (record.route >= 0 && record.route < tags.size()) {
        output.collect(tags.get(record.route), element);
      } else {
        throw new ProtocolException("a record of route " + record.route + " of " + tags.size());
      }
    }
  }

  /**
   * The last answer to the head of the sequence is there: it goes on, and so does what need not
   * wait behind it.
   */
  private void answered(InFlight head, Answer answer) throws Exception {
    nextWakeup = answer.nextWakeup();
    long now = System.nanoTime();
    window.answered(head.seq, head.records, head.bytes, now - head.sentAt);
    metric.roundTripMicros.update((now - head.sentAt) / 1000);
    countPause(session.lastArrival() - Math.max(head.sentAt, lastAnswered));
    lastAnswered = now;
    inFlight.poll();
    if (head.kind == InFlight.Kind.TICK) {
      isTickInFlight = false;
    }
    release(head);
    releaseHead();
    oldestSent = inFlight.isEmpty() ? NEVER : inFlight.peek().sentAt;
    scheduleTick();
  }

  /** Counts the time that the sidecar took for one message, if it was long. */
  private void countPause(long nanos) {
    if (nanos > PAUSE_NANOS) {
      metric.pauses.inc();
      metric.pauseMillis.inc(nanos / 1_000_000);
    }
  }

  private void releaseHead() throws Exception {
    while (!inFlight.isEmpty() && inFlight.peek().seq == 0) {
      release(inFlight.poll());
    }
  }

  private void release(InFlight item) throws Exception {
    switch (item.kind) {
      case WATERMARK -> super.processWatermark((Watermark) item.element);
      case STATUS -> super.processWatermarkStatus((WatermarkStatus) item.element);
      case MARKER -> super.processLatencyMarker((LatencyMarker) item.element);
      case ATTRIBUTES -> super.processRecordAttributes((RecordAttributes) item.element);
      case EVENT -> super.processWatermark((WatermarkEvent) item.element);
      case BATCH, TICK, BARRIER, END -> {}
    }
  }

  // ---- Processing time ----

  /**
   * Has a timer fire when the steps next want a tick, or before: one that comes early is set anew.
   */
  private void scheduleTick() {
    if (nextWakeup == 0 || isTickDue || isTickInFlight) {
      return;
    }
    if (timer != null && timerAt > nextWakeup) {
      timer.cancel(false);
      timer = null;
    }
    if (timer == null) {
      timerAt = nextWakeup;
      timer = getProcessingTimeService().registerTimer(nextWakeup, this::onTimer);
    }
  }

  private void onTimer(long time) {
    timer = null;
    isTickDue =
        nextWakeup != 0 && nextWakeup <= getProcessingTimeService().getCurrentProcessingTime();
    scheduleTick();
    sendDue();
  }

  // ---- Checkpoints ----

  @Override
  public void prepareSnapshotPreBarrier(long checkpoint) throws Exception {
    super.prepareSnapshotPreBarrier(checkpoint);
    long begin = System.nanoTime();
    resume();
    flush();
    cut = Cut.SENT;
    cutCheckpoint = checkpoint;
    sent(session.sendBarrier(checkpoint), InFlight.Kind.BARRIER, null);
    while (cut != Cut.ANSWERED) {
      await();
    }
    metric.barrierMillis.update((System.nanoTime() - begin) / 1_000_000);
  }

  @Override
  public OperatorSnapshotFutures snapshotState(
      long checkpoint, long timestamp, CheckpointOptions options, CheckpointStreamFactory storage)
      throws Exception {
    isStopping |=
        options.getCheckpointType() instanceof SavepointType savepoint && savepoint.isSynchronous();
    return super.snapshotState(checkpoint, timestamp, options, storage);
  }

  @Override
  public void snapshotState(StateSnapshotContext context) throws Exception {
    super.snapshotState(context);
    if (cut != Cut.ANSWERED) {
      throw new IllegalStateException(describe() + ": a snapshot without its barrier");
    }
    state.snapshot();
    cut = Cut.NONE;
    postDrain();
  }

  // ---- The end ----

  @Override
  public void close() throws Exception {
    if (watch != null) {
      watch.cancel(false);
      Timers.release();
    }
    if (session != null) {
      if (inFlight.isEmpty() && batch.records() == 0 && !session.hasInput()) {
        session.finish("the task ended");
      } else {
        session.close();
      }
    }
    super.close();
  }
}
