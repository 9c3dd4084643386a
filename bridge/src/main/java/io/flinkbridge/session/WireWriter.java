package io.flinkbridge.session;

import java.util.Arrays;

/**
 * Writes one message to the worker into an array that is used again and again. Room is left before
 * the message's kind for what is only known at the end (seq, time, the length): {@link #finish}
 * writes that from the back, and says where the message begins.
 */
final class WireWriter {
  /** More than seq, time, tag and length of the kind take: 11 + 11 + 6. */
  static final int HEAD = 32;

  private byte[] bytes;
  private int at = HEAD;
  private int begin = HEAD;

  WireWriter(int capacity) {
    bytes = new byte[HEAD + capacity];
  }

  /** Begins anew. */
  void reset() {
    at = HEAD;
  }

  /** Bytes of the kind's content so far. */
  int size() {
    return at - HEAD;
  }

  byte[] array() {
    return bytes;
  }

  /** Where the finished message begins. */
  int begin() {
    return begin;
  }

  /** Bytes of the finished message. */
  int messageSize() {
    return at - begin;
  }

  /** Puts what stands before the content: seq, the time, and the kind with the content's length. */
  void finish(long seq, long time, int kind) {
    int size = size();
    int head = numberSize(seq) + numberSize(time) + lengthOf(kind << 3 | 2) + lengthOf(size);
    int end = at;
    at = begin = HEAD - head;
    putNumber(1, seq);
    putNumber(2, time);
    putVarint(kind << 3 | 2);
    putVarint(size);
    at = end;
  }

  /** Makes room for so many bytes, and for what {@link #putTime} may write beyond them. */
  void need(int size) {
    if (bytes.length - at < size + Varint.BYTES_MAX) {
      bytes =
          Arrays.copyOf(
              bytes,
              Math.max(
                  Math.addExact(at, size + Varint.BYTES_MAX),
                  (int) Math.min(2L * bytes.length, Integer.MAX_VALUE - 16)));
    }
  }

  /* The following need room. */

  void putTag(int tag) {
    bytes[at++] = (byte) tag;
  }

  void putVarint(long value) {
    while ((value & ~0x7fL) != 0) {
      bytes[at++] = (byte) (value & 0x7f | 0x80);
      value >>>= 7;
    }
    bytes[at++] = (byte) value;
  }

  /** A number of many bytes; what stands behind it is lost. */
  void putTime(long value) {
    int size = lengthOf(value);
    LittleEndian.putLong(bytes, at, Varint.split(value, size));
    if (size > Long.BYTES) {
      bytes[at + 8] = (byte) (value >>> 56 & 0x7f | (size > 9 ? 0x80 : 0));
      bytes[at + 9] = (byte) (value >>> 63);
    }
    at += size;
  }

  void putFixed32(int value) {
    LittleEndian.putInt(bytes, at, value);
    at += 4;
  }

  void putFixed64(long value) {
    LittleEndian.putLong(bytes, at, value);
    at += 8;
  }

  void putBytes(byte[] from) {
    putBytes(from, 0, from.length);
  }

  void putBytes(byte[] from, int offset, int size) {
    System.arraycopy(from, offset, bytes, at, size);
    at += size;
  }

  /** A field of bytes; none when it is empty. */
  void putField(int field, byte[] from, int at, int size) {
    if (size != 0) {
      putTag(field << 3 | 2);
      putVarint(size);
      putBytes(from, at, size);
    }
  }

  /** A field of a number; none when it is 0. */
  void putNumber(int field, long value) {
    if (value != 0) {
      putTag(field << 3);
      putVarint(value);
    }
  }

  /** How many bytes a field of so many bytes takes; its tag is one. */
  static int fieldSize(int size) {
    return size == 0 ? 0 : 1 + lengthOf(size) + size;
  }

  /** How many bytes a field of a number takes; its tag is one. */
  static int numberSize(long value) {
    return value == 0 ? 0 : 1 + lengthOf(value);
  }

  /** How many bytes a number takes. */
  static int lengthOf(long value) {
    return (70 - Long.numberOfLeadingZeros(value | 1)) / 7;
  }
}
