package io.flinkbridge.session;

import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.KeyHash;

/**
 * The batch that is being filled. A record is written into it as the bytes that go out, at once:
 * Flink may use the object again, and nothing is kept per record but these bytes.
 */
public final class Batch {
  private static final int KIND = 6; // ToWorker.batch

  private final WireWriter out;
  private final int maxParallelism;
  private int records;

  /** A batch whose records get key groups if {@code maxParallelism} is not 0. */
  public Batch(int capacity, int maxParallelism) {
    this.out = new WireWriter(capacity);
    this.maxParallelism = maxParallelism;
  }

  public int records() {
    return records;
  }

  public int bytes() {
    return out.size();
  }

  /**
   * The bytes that a record with this event time, or with {@link BridgeRecord#NO_TIMESTAMP}, takes
   * in a message, without what stands before it.
   */
  public int sizeOf(BridgeRecord record, long timestamp) {
    int size =
        WireWriter.fieldSize(record.payload.length)
            + record.headers.wire().length
            + (timestamp == BridgeRecord.NO_TIMESTAMP ? 0 : 1 + WireWriter.lengthOf(timestamp))
            + WireWriter.numberSize(record.input);
    if (record.key != null) {
      size += sizeWithHead(record.key.length) + 5;
    }
    if (maxParallelism != 0) {
      size += WireWriter.numberSize(KeyHash.groupOf(record.keyHash, maxParallelism));
    }
    return size;
  }

  /** The bytes that a field of this size takes with what stands before it: a record, or its key. */
  public static int sizeWithHead(int size) {
    return 1 + WireWriter.lengthOf(size) + size;
  }

  /** Appends a record whose size is known. */
  public void add(BridgeRecord record, long timestamp, int size) {
    out.need(sizeWithHead(size));
    out.putTag(1 << 3 | 2);
    out.putVarint(size);
    out.putField(1, record.payload, 0, record.payload.length);
    out.putBytes(record.headers.wire());
    if (timestamp != BridgeRecord.NO_TIMESTAMP) {
      out.putTag(3 << 3);
      out.putTime(timestamp);
    }
    if (record.key != null) { // an empty one is a key, too
      out.putTag(4 << 3 | 2);
      out.putVarint(record.key.length);
      out.putBytes(record.key);
      out.putTag(5 << 3 | 5);
      out.putFixed32(record.keyHash);
    }
    if (maxParallelism != 0) {
      out.putNumber(6, KeyHash.groupOf(record.keyHash, maxParallelism));
    }
    out.putNumber(7, record.input);
    records++;
  }

  WireWriter finish(long seq, long time) {
    out.finish(seq, time, KIND);
    return out;
  }

  void reset() {
    out.reset();
    records = 0;
  }
}
