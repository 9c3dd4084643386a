package io.flinkbridge.testing;

import io.flinkbridge.operator.BridgeOperatorFactory;
import io.flinkbridge.operator.SegmentSettings;
import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.BridgeRecordSerializer;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.common.JobID;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.runtime.operators.testutils.MockEnvironment;
import org.apache.flink.runtime.operators.testutils.MockEnvironmentBuilder;
import org.apache.flink.runtime.state.StateBackend;
import org.apache.flink.runtime.state.hashmap.HashMapStateBackend;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.KeyedOneInputStreamOperatorTestHarness;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;

/** Flink's harness around a bridge operator: one subtask, without a cluster. */
public final class Harness {
  private Harness() {}

  /** The harness of a segment that is not keyed. */
  public static OneInputStreamOperatorTestHarness<BridgeRecord, BridgeRecord> of(
      SegmentSettings settings) throws Exception {
    return of(settings, 1, 0);
  }

  /** The same of one subtask of several. */
  public static OneInputStreamOperatorTestHarness<BridgeRecord, BridgeRecord> of(
      SegmentSettings settings, int parallelism, int subtask) throws Exception {
    return of(settings, parallelism, subtask, new HashMapStateBackend());
  }

  /** The same with a state backend; the harness takes none that is set after its setup. */
  public static OneInputStreamOperatorTestHarness<BridgeRecord, BridgeRecord> of(
      SegmentSettings settings, int parallelism, int subtask, StateBackend backend)
      throws Exception {
    BridgeOperatorFactory factory = new BridgeOperatorFactory(settings);
    OneInputStreamOperatorTestHarness<BridgeRecord, BridgeRecord> harness =
        settings.keyed()
            ? new KeyedOneInputStreamOperatorTestHarness<>(
                factory,
                record -> record.keyHash,
                Types.INT,
                settings.maxParallelism(),
                parallelism,
                subtask)
            : new OneInputStreamOperatorTestHarness<>(
                factory, settings.maxParallelism(), parallelism, subtask);
    harness.setStateBackend(backend);
    harness.setup(BridgeRecordSerializer.INSTANCE);
    return harness;
  }

  /** The harness of a segment that is not keyed, in a job that others are in, too. */
  public static OneInputStreamOperatorTestHarness<BridgeRecord, BridgeRecord> of(
      SegmentSettings settings, JobID job) throws Exception {
    MockEnvironment environment =
        new MockEnvironmentBuilder()
            .setJobID(job)
            .setMaxParallelism(settings.maxParallelism())
            .build();
    OneInputStreamOperatorTestHarness<BridgeRecord, BridgeRecord> harness =
        new OneInputStreamOperatorTestHarness<>(new BridgeOperatorFactory(settings), environment);
    harness.setup(BridgeRecordSerializer.INSTANCE);
    return harness;
  }

  /** A checkpoint as the task takes it: what goes before the barrier, then the snapshot. */
  public static OperatorSubtaskState checkpoint(
      OneInputStreamOperatorTestHarness<BridgeRecord, BridgeRecord> harness, long id)
      throws Exception {
    harness.prepareSnapshotPreBarrier(id);
    return harness.snapshot(id, id);
  }

  /** Runs mails until so many elements have come out. */
  public static void runUntil(
      OneInputStreamOperatorTestHarness<BridgeRecord, BridgeRecord> harness, int elements) {
    Sidecar.waitUntil(
        elements + " elements",
        () -> {
          runMails(harness);
          return harness.getOutput().size() >= elements;
        });
  }

  /** Runs the mails that are there. */
  public static void runMails(
      OneInputStreamOperatorTestHarness<BridgeRecord, BridgeRecord> harness) {
    try {
      for (var mail = harness.getTaskMailbox().tryTake(0);
          mail.isPresent();
          mail = harness.getTaskMailbox().tryTake(0)) {
        mail.get().run();
      }
    } catch (RuntimeException e) {
      throw e;
    } catch (Exception e) {
      throw new AssertionError(e);
    }
  }

  /**
   * What came out, in words: payloads, {@code W5} for a watermark, others as they call themselves.
   */
  public static List<String> output(
      OneInputStreamOperatorTestHarness<BridgeRecord, BridgeRecord> harness) {
    List<String> all = new ArrayList<>();
    for (Object element : harness.getOutput()) {
      if (element instanceof StreamRecord<?> record) {
        all.add(((BridgeRecord) record.getValue()).text());
      } else if (element instanceof Watermark mark) {
        all.add("W" + mark.getTimestamp());
      } else {
        all.add(element.toString());
      }
    }
    return all;
  }
}
