package io.flinkbridge.same;

import io.flinkbridge.record.BridgeRecord;
import java.util.function.Supplier;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;

/**
 * A keyed segment, and what Flink has for it.
 *
 * @param name what it is called in failures
 * @param steps the steps of the segment, as a pipeline has them behind a {@code key_by}
 * @param inputs how many inputs the segment has; an element of a trace comes in by any of them
 * @param operator makes the native operator that means the same; it is keyed by the record's key as
 *     text
 */
record Case(
    String name,
    String steps,
    int inputs,
    Supplier<OneInputStreamOperator<BridgeRecord, BridgeRecord>> operator) {

  /** The number of the segment in {@link #pipeline}: the first ends at the key_by. */
  static final int SEGMENT = 1;

  static final int MAX_PARALLELISM = 16;

  /** A pipeline that has the segment. */
  String pipeline() {
    return """
        name: same
        max_parallelism: %d
        sources:
          in: { kind: generator }
        steps:
          - { name: by_key, kind: key_by, key: .key }
        %s
        sinks:
          out: { kind: discard }
        """
        .formatted(MAX_PARALLELISM, steps.indent(2).stripTrailing());
  }

  @Override
  public String toString() {
    return name;
  }
}
