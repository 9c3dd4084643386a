package io.flinkbridge.session;

import java.util.Arrays;
import net.openhft.hashing.LongHashFunction;

/**
 * Reads the entries of a StateDelta, one by one, after it has checked that they came as they were
 * sent.
 */
public final class DeltaReader {
  private static final LongHashFunction XXH3 = LongHashFunction.xx3();
  private static final int ENTRY = 1 << 3 | WireReader.BYTES;
  private static final int CHECKSUM = 2 << 3 | WireReader.FIXED64;

  private final WireReader delta = new WireReader();
  private final WireReader entry = new WireReader();
  private byte[] array = new byte[0];

  private int state;
  private int keyGroup;
  private int keyHash;
  private int keyAt;
  private int keySize;
  private int subKeyAt;
  private int subKeySize;
  private int valueAt;
  private int valueSize;
  private boolean isRemoved;
  private boolean hasMore;

  /** Begins with a StateDelta. */
  public void over(Answer answer) {
    array = answer.content();
    checkSum();
    delta.over(array, 0, array.length);
  }

  /** Entries stand behind one another, the checksum behind them: as the worker writes it. */
  private void checkSum() {
    int end = array.length;
    int sumAt = end - 9;
    long sum = 0;
    if (sumAt >= 0 && array[sumAt] == CHECKSUM) {
      sum = LittleEndian.getLong(array, sumAt + 1);
      end = sumAt;
    }
    if (XXH3.hashBytes(array, 0, end) != sum) {
      throw new ProtocolException("a StateDelta whose checksum is wrong");
    }
  }

  /** Goes on to the next entry, and says whether there is one. */
  public boolean next() {
    while (delta.next()) {
      if (delta.tag() == ENTRY) {
        int size = delta.skipBytes();
        read(delta.offset() - size, size);
        return true;
      }
      delta.skip();
    }
    return false;
  }

  private void read(int offset, int size) {
    state = keyGroup = keyHash = keyAt = keySize = subKeyAt = subKeySize = valueAt = valueSize = 0;
    isRemoved = hasMore = false;
    entry.over(array, offset, size);
    while (entry.next()) {
      switch (entry.tag()) {
        case 1 << 3 -> state = (int) entry.varint();
        case 2 << 3 -> keyGroup = (int) entry.varint();
        case 3 << 3 | WireReader.FIXED32 -> keyHash = entry.fixed32();
        case 4 << 3 | WireReader.BYTES -> {
          keySize = entry.skipBytes();
          keyAt = entry.offset() - keySize;
        }
        case 5 << 3 | WireReader.BYTES -> {
          subKeySize = entry.skipBytes();
          subKeyAt = entry.offset() - subKeySize;
        }
        case 6 << 3 | WireReader.BYTES -> {
          valueSize = entry.skipBytes();
          valueAt = entry.offset() - valueSize;
        }
        case 7 << 3 -> isRemoved = entry.varint() != 0;
        case 8 << 3 -> hasMore = entry.varint() != 0;
        default -> entry.skip();
      }
    }
  }

  public int state() {
    return state;
  }

  public int keyGroup() {
    return keyGroup;
  }

  public int keyHash() {
    return keyHash;
  }

  /** The array that key and sub-key lie in. */
  public byte[] array() {
    return array;
  }

  public int keyOffset() {
    return keyAt;
  }

  public int keySize() {
    return keySize;
  }

  public int subKeyOffset() {
    return subKeyAt;
  }

  public int subKeySize() {
    return subKeySize;
  }

  /** A copy of the value. */
  public byte[] value() {
    return Arrays.copyOfRange(array, valueAt, valueAt + valueSize);
  }

  public boolean isRemoved() {
    return isRemoved;
  }

  /** Whether the value goes on in the next entry. */
  public boolean hasMore() {
    return hasMore;
  }
}
