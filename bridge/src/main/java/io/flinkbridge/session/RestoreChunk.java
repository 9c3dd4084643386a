package io.flinkbridge.session;

import net.openhft.hashing.LongHashFunction;

/**
 * A part of the state to restore, that is being filled: entries as the wire has them, then their
 * checksum.
 */
public final class RestoreChunk {
  private static final int KIND = 4; // ToWorker.restore_chunk
  private static final LongHashFunction XXH3 = LongHashFunction.xx3();

  private final WireWriter out;

  public RestoreChunk(int capacity) {
    this.out = new WireWriter(capacity);
  }

  public int bytes() {
    return out.size();
  }

  /** The most bytes that an entry takes, or a part of one. */
  public static int sizeAtMost(int keySize, int subKeySize, int valueSize) {
    return 6 + 6 + 4 + 5 + 6 + keySize + 6 + subKeySize + 6 + valueSize + 2;
  }

  /**
   * Appends an entry, or with {@code more} a part of one; key and sub-key lie behind one another in
   * {@code keys}.
   */
  public void add(
      int state,
      int keyGroup,
      int keyHash,
      byte[] keys,
      int keyAt,
      int keySize,
      int subKeySize,
      byte[] value,
      int valueAt,
      int valueSize,
      boolean more) {
    int size =
        WireWriter.numberSize(state)
            + WireWriter.numberSize(keyGroup)
            + (keyHash == 0 ? 0 : 5)
            + WireWriter.fieldSize(keySize)
            + WireWriter.fieldSize(subKeySize)
            + WireWriter.fieldSize(valueSize)
            + (more ? 2 : 0);
    out.need(size + 6);
    out.putTag(1 << 3 | 2);
    out.putVarint(size);
    out.putNumber(1, state);
    out.putNumber(2, keyGroup);
    if (keyHash != 0) {
      out.putTag(3 << 3 | 5);
      out.putFixed32(keyHash);
    }
    out.putField(4, keys, keyAt, keySize);
    out.putField(5, keys, keyAt + keySize, subKeySize);
    out.putField(6, value, valueAt, valueSize);
    out.putNumber(8, more ? 1 : 0);
  }

  WireWriter finish(long seq, long time) {
    long checksum = XXH3.hashBytes(out.array(), WireWriter.HEAD, out.size());
    out.need(9);
    out.putTag(2 << 3 | 1);
    out.putFixed64(checksum);
    out.finish(seq, time, KIND);
    return out;
  }

  void reset() {
    out.reset();
  }
}
