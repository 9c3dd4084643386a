package io.flinkbridge.same;

import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.BridgeRecordSerializer;
import io.flinkbridge.same.Trace.ChannelStatus;
import io.flinkbridge.same.Trace.ChannelWatermark;
import io.flinkbridge.same.Trace.Checkpoint;
import io.flinkbridge.same.Trace.Clock;
import io.flinkbridge.same.Trace.Element;
import io.flinkbridge.same.Trace.Failure;
import io.flinkbridge.same.Trace.Happening;
import io.flinkbridge.same.Trace.Kill;
import io.flinkbridge.same.Trace.Reload;
import io.flinkbridge.same.Trace.Rescale;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Queue;
import java.util.Set;
import java.util.function.Supplier;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.java.functions.KeySelector;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.runtime.event.WatermarkEvent;
import org.apache.flink.runtime.state.KeyGroupRangeAssignment;
import org.apache.flink.runtime.state.StateBackend;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.operators.SimpleOperatorFactory;
import org.apache.flink.streaming.api.operators.StreamOperatorFactory;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.io.PushingAsyncDataInput.DataOutput;
import org.apache.flink.streaming.runtime.streamrecord.LatencyMarker;
import org.apache.flink.streaming.runtime.streamrecord.RecordAttributes;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.StatusWatermarkValve;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.apache.flink.streaming.util.KeyedOneInputStreamOperatorTestHarness;

/**
 * Plays a trace to an operator, as Flink would: elements go to the subtask that has their key
 * group, watermarks through the valve of a task's input to all of them.
 *
 * <p>What an operator has put out is kept once a checkpoint is complete, and thrown away with a
 * failure, as a sink with transactions would. After a failure the trace goes on from the
 * checkpoint; what has been done to the operator from outside (failures, deaths) is not done again,
 * and the clock does not go back.
 *
 * @param <K> what Flink keys the stream by
 */
final class Player<K> {

  /**
   * A record that was put out.
   *
   * @param key its key
   * @param payload its payload
   * @param timestamp its event time
   * @param watermark the one that its subtask had put out before it; the last of all, which stands
   *     for the end, does not count: natively there is nothing behind it
   */
  record Out(String key, String payload, long timestamp, long watermark) {}

  /** What is done to the process behind the operator; nothing, where there is none. */
  interface Outside {
    void kill() throws Exception;

    void reload() throws Exception;
  }

  /** How subtasks are made. */
  record Subject<K>(
      Supplier<StreamOperatorFactory<BridgeRecord>> factory,
      KeySelector<BridgeRecord, K> selector,
      TypeInformation<K> type,
      StateBackend backend,
      Outside outside) {

    /** A native operator, keyed by the text of the key. */
    static Subject<String> of(
        Supplier<OneInputStreamOperator<BridgeRecord, BridgeRecord>> operator,
        StateBackend backend) {
      Outside nobody =
          new Outside() {
            @Override
            public void kill() {}

            @Override
            public void reload() {}
          };
      return new Subject<>(
          () -> SimpleOperatorFactory.of(operator.get()),
          Player::keyOf,
          TypeInformation.of(String.class),
          backend,
          nobody);
    }
  }

  private final Subject<K> subject;
  private final Trace trace;
  private final List<KeyedOneInputStreamOperatorTestHarness<K, BridgeRecord, BridgeRecord>>
      subtasks = new ArrayList<>();
  private final List<Out> committed = new ArrayList<>();
  private final Set<Integer> done = new HashSet<>();
  private StatusWatermarkValve valve;
  private long now = 1_000_000;
  private long checkpoint;
  private OperatorSubtaskState restorable;
  private int restorableParallelism = 1;
  private int restorablePosition;
  private long[] emittedWatermarks = {};

  private Player(Subject<K> subject, Trace trace) {
    this.subject = subject;
    this.trace = trace;
  }

  /**
   * Plays a trace to its end; everything that has been put out, subtask by subtask between two
   * checkpoints.
   */
  static <K> List<Out> play(Subject<K> subject, Trace trace) throws Exception {
    Player<K> player = new Player<>(subject, trace);
    try {
      player.play();
    } finally {
      player.end();
    }
    return player.committed;
  }

  /** The key of a record as text. */
  static String keyOf(BridgeRecord record) {
    return new String(record.key, StandardCharsets.UTF_8);
  }

  private void play() throws Exception {
    begin(1);
    int position = 0;
    while (position < trace.happenings().size()) {
      position = play(trace.happenings().get(position), position);
    }
    for (var subtask : subtasks) {
      subtask.processWatermark(Watermark.MAX_WATERMARK);
      subtask.endInput();
    }
    checkpoint(true, position);
  }

  /** Lets one thing happen; returns where the trace goes on. */
  private int play(Happening happening, int position) throws Exception {
    if (happening instanceof Element element) {
      process(element);
    } else if (happening instanceof ChannelWatermark mark) {
      valve.inputWatermark(new Watermark(mark.timestamp()), mark.channel(), new Broadcast());
    } else if (happening instanceof ChannelStatus status) {
      valve.inputWatermarkStatus(
          status.idle() ? WatermarkStatus.IDLE : WatermarkStatus.ACTIVE,
          status.channel(),
          new Broadcast());
    } else if (happening instanceof Clock clock) {
      advance(clock.milliseconds());
    } else if (happening instanceof Checkpoint cut) {
      checkpoint(cut.completes(), position + 1);
    } else if (happening instanceof Rescale rescale) {
      checkpoint(true, position + 1);
      end();
      begin(rescale.parallelism());
    } else if (done.add(
        position)) { // what comes from outside comes once, however often the trace passes here
      return interfere(happening, position);
    }
    return position + 1;
  }

  private int interfere(Happening happening, int position) throws Exception {
    if (happening instanceof Failure failure) {
      end();
      begin(failure.parallelism());
      return restorablePosition;
    }
    if (happening instanceof Kill) {
      subject.outside.kill();
    } else if (happening instanceof Reload) {
      subject.outside.reload();
    } else {
      throw new IllegalStateException("nobody knows how to play " + happening);
    }
    return position + 1;
  }

  private void process(Element element) throws Exception {
    byte[] key = element.key().getBytes(StandardCharsets.UTF_8);
    String payload =
        "{\"key\":\"%s\",\"id\":%d,\"value\":%d}"
            .formatted(element.key(), element.id(), element.value());
    BridgeRecord record =
        BridgeRecord.of(payload)
            .withTimestamp(element.timestamp())
            .withKey(key)
            .withInput(element.input());
    int target =
        KeyGroupRangeAssignment.assignKeyToParallelOperator(
            subject.selector.getKey(record), Case.MAX_PARALLELISM, subtasks.size());
    subtasks.get(target).processElement(new StreamRecord<>(record, element.timestamp()));
  }

  /**
   * Lets time pass once everything that came before has been answered, and waits for what falls
   * due: so it is the same time for all.
   */
  private void advance(long milliseconds) throws Exception {
    settle();
    now += milliseconds;
    for (var subtask : subtasks) {
      subtask.setProcessingTime(now);
    }
    settle();
  }

  /**
   * Waits until all subtasks have put out what they owe: a marker that is sent behind it comes out.
   */
  private void settle() throws Exception {
    for (var subtask : subtasks) {
      LatencyMarker marker = new LatencyMarker(now, subtask.getOperator().getOperatorID(), 0);
      subtask.getOneInputOperator().processLatencyMarker(marker);
      while (!isOut(subtask.getOutput(), marker)) {
        subtask.getTaskMailbox().take(0).run();
      }
    }
  }

  /** Whether a marker has come out; identity is what counts, as an earlier one may be equal. */
  private static boolean isOut(Queue<Object> output, LatencyMarker marker) {
    return output.stream().anyMatch(element -> element == marker);
  }

  private void checkpoint(boolean completes, int position) throws Exception {
    checkpoint++;
    OperatorSubtaskState[] states = new OperatorSubtaskState[subtasks.size()];
    for (int i = 0; i < states.length; i++) {
      subtasks.get(i).prepareSnapshotPreBarrier(checkpoint);
      states[i] = subtasks.get(i).snapshot(checkpoint, now);
    }
    for (var subtask : subtasks) {
      if (completes) {
        subtask.notifyOfCompletedCheckpoint(checkpoint);
      } else {
        subtask.getOperator().notifyCheckpointAborted(checkpoint);
      }
    }
    if (completes) {
      restorable = KeyedOneInputStreamOperatorTestHarness.repackageState(states);
      restorableParallelism = states.length;
      restorablePosition = position;
      commit();
    }
  }

  /** What has come out is final. */
  private void commit() {
    for (int i = 0; i < subtasks.size(); i++) {
      for (Object element = subtasks.get(i).getOutput().poll();
          element != null;
          element = subtasks.get(i).getOutput().poll()) {
        if (element instanceof Watermark mark && !mark.equals(Watermark.MAX_WATERMARK)) {
          emittedWatermarks[i] = mark.getTimestamp();
        } else if (element instanceof StreamRecord<?> record) {
          BridgeRecord value = (BridgeRecord) record.getValue();
          committed.add(new Out(keyOf(value), value.text(), value.timestamp, emittedWatermarks[i]));
        }
      }
    }
  }

  /** Starts subtasks from the last completed checkpoint. */
  private void begin(int parallelism) throws Exception {
    valve = new StatusWatermarkValve(trace.channels());
    emittedWatermarks = new long[parallelism];
    Arrays.fill(emittedWatermarks, Long.MIN_VALUE);
    for (int i = 0; i < parallelism; i++) {
      var subtask =
          new KeyedOneInputStreamOperatorTestHarness<>(
              subject.factory.get(),
              subject.selector,
              subject.type,
              Case.MAX_PARALLELISM,
              parallelism,
              i);
      subtasks.add(subtask);
      subtask.setStateBackend(subject.backend);
      subtask.setup(BridgeRecordSerializer.INSTANCE);
      subtask.setProcessingTime(now);
      if (restorable != null) {
        subtask.setRestoredCheckpointId(checkpoint);
        subtask.initializeState(
            KeyedOneInputStreamOperatorTestHarness.repartitionOperatorState(
                restorable, Case.MAX_PARALLELISM, restorableParallelism, parallelism, i));
      }
      subtask.open();
    }
    advance(0); // what fell due meanwhile does so now, as it does in a task
  }

  /** Drops all subtasks with what they have put out. */
  private void end() throws Exception {
    for (var subtask : subtasks) {
      subtask.close();
    }
    subtasks.clear();
  }

  /** Where the valve's output goes: to every subtask. */
  private final class Broadcast implements DataOutput<BridgeRecord> {
    @Override
    public void emitWatermark(Watermark watermark) throws Exception {
      for (var subtask : subtasks) {
        subtask.processWatermark(watermark);
      }
    }

    @Override
    public void emitWatermarkStatus(WatermarkStatus status) throws Exception {
      for (var subtask : subtasks) {
        subtask.processWatermarkStatus(status);
      }
    }

    @Override
    public void emitRecord(StreamRecord<BridgeRecord> record) {
      throw new IllegalStateException("a valve has no records");
    }

    @Override
    public void emitLatencyMarker(LatencyMarker marker) {
      throw new IllegalStateException("a valve has no markers");
    }

    @Override
    public void emitRecordAttributes(RecordAttributes attributes) {
      throw new IllegalStateException("a valve has no attributes");
    }

    @Override
    public void emitWatermark(WatermarkEvent watermark) {
      throw new IllegalStateException("a valve has no generalised watermarks");
    }
  }
}
