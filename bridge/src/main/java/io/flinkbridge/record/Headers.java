package io.flinkbridge.record;

import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.BiConsumer;
import org.jspecify.annotations.Nullable;

/**
 * The headers of a record: names and values, both text, immutable.
 *
 * <p>They are kept as the wire has them (the {@code headers} fields of a {@code Record}, each with
 * its tag and length), because most headers pass through an operator unread: from an answer into a
 * record, and from that into the next segment's batch, they are one copy of bytes. Whoever reads
 * them pays for the parsing.
 */
public final class Headers {
  /** No headers. */
  public static final Headers EMPTY = new Headers(new byte[0]);

  private static final int TAG = 2 << 3 | 2; // Record.headers
  private static final int NAME_TAG = 1 << 3 | 2;
  private static final int VALUE_TAG = 2 << 3 | 2;

  private final byte[] wire;

  private Headers(byte[] wire) {
    this.wire = wire;
  }

  /** Headers of names and values in turn; of a name given twice the last value counts. */
  public static Headers of(String... namesAndValues) {
    if (namesAndValues.length % 2 != 0) {
      throw new IllegalArgumentException(
          "headers are names and values in turn, so their number is even");
    }
    Map<String, String> map = new LinkedHashMap<>();
    for (int i = 0; i < namesAndValues.length; i += 2) {
      map.put(namesAndValues[i], namesAndValues[i + 1]);
    }
    return of(map);
  }

  /** Headers out of a map, in its order. */
  public static Headers of(Map<String, String> map) {
    if (map.isEmpty()) {
      return EMPTY;
    }
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    map.forEach(
        (name, value) -> {
          byte[] nameBytes = name.getBytes(StandardCharsets.UTF_8);
          byte[] valueBytes = value.getBytes(StandardCharsets.UTF_8);
          int size =
              2
                  + lengthOfVarint(nameBytes.length)
                  + nameBytes.length
                  + lengthOfVarint(valueBytes.length)
                  + valueBytes.length;
          out.write(TAG);
          writeVarint(out, size);
          out.write(NAME_TAG);
          writeVarint(out, nameBytes.length);
          out.writeBytes(nameBytes);
          out.write(VALUE_TAG);
          writeVarint(out, valueBytes.length);
          out.writeBytes(valueBytes);
        });
    return new Headers(out.toByteArray());
  }

  /**
   * Headers as they stand on the wire; the array must not change any more. Damage is found when
   * they are read.
   */
  public static Headers ofWire(byte[] wire) {
    return wire.length == 0 ? EMPTY : new Headers(wire);
  }

  /** As they stand on the wire. Must not be changed. */
  public byte[] wire() {
    return wire;
  }

  public boolean isEmpty() {
    return wire.length == 0;
  }

  /** The value of a header, or null when there is none of that name. */
  public @Nullable String get(String name) {
    String[] found = new String[1];
    forEach(
        (other, value) -> {
          if (other.equals(name)) {
            found[0] = value;
          }
        });
    return found[0];
  }

  /** All of them as a map, in their order. */
  public Map<String, String> toMap() {
    Map<String, String> map = new LinkedHashMap<>();
    forEach(map::put);
    return map;
  }

  /**
   * Hands each header to an action, in their order; a name may come twice, and then the last one
   * counts.
   */
  public void forEach(BiConsumer<String, String> action) {
    Cursor cursor = new Cursor(wire, 0, wire.length);
    while (cursor.at < cursor.end) {
      cursor.expect(TAG);
      Cursor entry = cursor.part();
      String name = "";
      String value = "";
      while (entry.at < entry.end) {
        int tag = entry.varint();
        if (tag == NAME_TAG) {
          name = entry.text();
        } else if (tag == VALUE_TAG) {
          value = entry.text();
        } else {
          throw new IllegalArgumentException("damaged headers: tag " + tag);
        }
      }
      action.accept(name, value);
    }
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof Headers headers
        && (Arrays.equals(wire, headers.wire) || toMap().equals(headers.toMap()));
  }

  @Override
  public int hashCode() {
    return toMap().hashCode();
  }

  @Override
  public String toString() {
    return toMap().toString();
  }

  private static int lengthOfVarint(int value) {
    int length = 1;
    while (value >>> 7 * length != 0 && length < 5) {
      length++;
    }
    return length;
  }

  private static void writeVarint(ByteArrayOutputStream out, int value) {
    while (value >>> 7 != 0) {
      out.write(value & 0x7f | 0x80);
      value >>>= 7;
    }
    out.write(value);
  }

  /** A place in the bytes; checks every length before it uses it. */
  private static final class Cursor {
    private final byte[] bytes;
    private final int end;
    private int at;

    private Cursor(byte[] bytes, int at, int end) {
      this.bytes = bytes;
      this.at = at;
      this.end = end;
    }

    private int varint() {
      int value = 0;
      for (int shift = 0; shift < 35; shift += 7) {
        if (at == end) {
          throw new IllegalArgumentException("damaged headers: they end in a number");
        }
        byte next = bytes[at++];
        value |= (next & 0x7f) << shift;
        if (next >= 0) {
          return value;
        }
      }
      throw new IllegalArgumentException("damaged headers: a number has no end");
    }

    private void expect(int tag) {
      int found = varint();
      if (found != tag) {
        throw new IllegalArgumentException("damaged headers: tag " + found);
      }
    }

    private Cursor part() {
      int length = varint();
      if (length < 0 || length > end - at) {
        throw new IllegalArgumentException(
            "damaged headers: a length of " + length + " with " + (end - at) + " bytes left");
      }
      Cursor part = new Cursor(bytes, at, at + length);
      at += length;
      return part;
    }

    private String text() {
      Cursor part = part();
      return new String(bytes, part.at, part.end - part.at, StandardCharsets.UTF_8);
    }
  }
}
