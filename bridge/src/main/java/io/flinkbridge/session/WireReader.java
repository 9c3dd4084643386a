package io.flinkbridge.session;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * Reads protobuf out of an array, field by field: {@code while (next()) switch (field()) ...}.
 * Every length is checked before it is used; what cannot be read ends in a {@link
 * ProtocolException}. It is reused from message to message, so reading costs no objects.
 */
public final class WireReader {
  /** Wire types. */
  public static final int VARINT = 0;

  public static final int FIXED64 = 1;
  public static final int BYTES = 2;
  public static final int FIXED32 = 5;

  private static final byte[] NOTHING = new byte[0];

  private byte[] bytes = NOTHING;
  private int at;
  private int end;
  private int tag;
  private int tagAt;

  /** Begins to read a part of an array. */
  public WireReader over(byte[] array, int offset, int size) {
    if (bytes != array) { // as a rule the same: storing a reference is more than storing a number
      bytes = array;
    }
    at = offset;
    end = offset + size;
    return this;
  }

  /** Goes on to the next field, and says whether there is one. */
  public boolean next() {
    if (at == end) {
      return false;
    }
    tagAt = at;
    tag = (int) varint();
    if (tag >>> 3 == 0) {
      throw new ProtocolException("field number 0");
    }
    return true;
  }

  /** The field's number and wire type, as {@code field << 3 | type}. */
  public int tag() {
    return tag;
  }

  /** Where the field's tag stands in the array. */
  public int tagOffset() {
    return tagAt;
  }

  /** Where the next byte stands in the array. */
  public int offset() {
    return at;
  }

  /** Where the part ends in the array. */
  public int end() {
    return end;
  }

  /** A number of up to 64 bits. */
  public long varint() {
    if (at < end) {
      byte first = bytes[at];
      if (first >= 0) {
        at++;
        return first;
      }
    }
    return bytes.length - at >= Varint.BYTES_MAX ? roomyVarint() : lastVarint();
  }

  /** One with room behind it, eight bytes at once: a time has six, or ten when there is none. */
  private long roomyVarint() {
    long word = LittleEndian.getLong(bytes, at);
    int size = Varint.sizeIn(word);
    long value = Varint.join(word, size);
    if (size > Long.BYTES) {
      long ninth = bytes[at + 8];
      value |= (ninth & 0x7f) << 56;
      if (ninth < 0) {
        long tenth = bytes[at + 9];
        size = tenth < 0 ? Integer.MAX_VALUE : Varint.BYTES_MAX;
        value |= tenth << 63;
      }
    }
    if (size > end - at) {
      throw new ProtocolException(
          end - at < Varint.BYTES_MAX ? "the message ends in a number" : "a number has no end");
    }
    at += size;
    return value;
  }

  private long lastVarint() {
    long value = 0;
    for (int shift = 0; at < end; shift += 7) {
      byte next = bytes[at++];
      value |= (long) (next & 0x7f) << shift;
      if (next >= 0) {
        return value;
      }
    }
    throw new ProtocolException("the message ends in a number");
  }

  /** Four bytes, little end first. */
  public int fixed32() {
    need(4);
    int value = LittleEndian.getInt(bytes, at);
    at += 4;
    return value;
  }

  /** Eight bytes, little end first. */
  public long fixed64() {
    need(8);
    long value = LittleEndian.getLong(bytes, at);
    at += 8;
    return value;
  }

  /**
   * Goes past the bytes of a field, and gives their number; they begin at {@link #offset} less
   * that.
   */
  public int skipBytes() {
    long size = varint();
    if (size < 0 || size > end - at) {
      throw new ProtocolException("a length of " + size + " with " + (end - at) + " bytes left");
    }
    at += (int) size;
    return (int) size;
  }

  /** A copy of the bytes of a field. */
  public byte[] copyBytes() {
    int size = skipBytes();
    return size == 0 ? NOTHING : Arrays.copyOfRange(bytes, at - size, at);
  }

  /** The bytes of a field as text. */
  public String text() {
    int size = skipBytes();
    return new String(bytes, at - size, size, StandardCharsets.UTF_8);
  }

  /** Goes past a field that nobody knows. */
  public void skip() {
    switch (tag & 7) {
      case VARINT -> varint();
      case FIXED64 -> fixed64();
      case BYTES -> skipBytes();
      case FIXED32 -> fixed32();
      default -> throw new ProtocolException("a field of wire type " + (tag & 7));
    }
  }

  private void need(int size) {
    if (end - at < size) {
      throw new ProtocolException("the message ends in a number");
    }
  }
}
