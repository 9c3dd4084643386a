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
   * The bytes that a record with this event time takes in a message, without what stands before it.
   */
  public int sizeOf(BridgeRecord record, long timestamp) {
    int size = field(record.payload.length) + record.headers.wire().length;
    if (timestamp != 0) {
      size += 1 + WireWriter.lengthOf(timestamp);
    }
    if (record.key != null) {
      size += 1 + WireWriter.lengthOf(record.key.length) + record.key.length + 5;
    }
    if (maxParallelism != 0) {
      int group = KeyHash.groupOf(record.keyHash, maxParallelism);
      size += group == 0 ? 0 : 1 + WireWriter.lengthOf(group);
    }
    return record.input == 0 ? size : size + 1 + WireWriter.lengthOf(record.input);
  }

  /** The bytes that a record of this size takes with what stands before it. */
  public static int sizeWithHead(int size) {
    return 1 + WireWriter.lengthOf(size) + size;
  }

  /** Appends a record whose size is known. */
  public void add(BridgeRecord record, long timestamp, int size) {
    out.need(sizeWithHead(size));
    out.putTag(1 << 3 | 2);
    out.putVarint(size);
    if (record.payload.length > 0) {
      out.putTag(1 << 3 | 2);
      out.putVarint(record.payload.length);
      out.putBytes(record.payload);
    }
    out.putBytes(record.headers.wire());
    if (timestamp != 0) {
      out.putTag(3 << 3);
      out.putVarint(timestamp);
    }
    if (record.key != null) {
      out.putTag(4 << 3 | 2);
      out.putVarint(record.key.length);
      out.putBytes(record.key);
      out.putTag(5 << 3 | 5);
      out.putFixed32(record.keyHash);
    }
    if (maxParallelism != 0) {
      int group = KeyHash.groupOf(record.keyHash, maxParallelism);
      if (group != 0) {
        out.putTag(6 << 3);
        out.putVarint(group);
      }
    }
    if (record.input != 0) {
      out.putTag(7 << 3);
      out.putVarint(record.input);
    }
    records++;
  }

  /** The bytes of a field of bytes; none when it is empty. */
  private static int field(int length) {
    return length == 0 ? 0 : 1 + WireWriter.lengthOf(length) + length;
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
