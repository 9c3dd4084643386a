package io.flinkbridge.record;

import java.io.IOException;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/**
 * Sizes and small numbers as our serializers write them for Flink: seven bits a byte, the lowest
 * first. It is part of the format of savepoints.
 */
public final class Varint {
  private Varint() {}

  /** Writes a number; one below 0 takes five bytes. */
  public static void write(int value, DataOutputView out) throws IOException {
    int rest = value;
    while (rest >>> 7 != 0) {
      out.writeByte(rest & 0x7f | 0x80);
      rest >>>= 7;
    }
    out.writeByte(rest);
  }

  /** Reads it. */
  public static int read(DataInputView in) throws IOException {
    int value = 0;
    for (int shift = 0; shift < 35; shift += 7) {
      byte next = in.readByte();
      value |= (next & 0x7f) << shift;
      if (next >= 0) {
        return value;
      }
    }
    throw new IOException("damaged data: a number has no end");
  }

  /** Writes bytes behind their size. */
  public static void writeBytes(byte[] bytes, DataOutputView out) throws IOException {
    write(bytes.length, out);
    out.write(bytes, 0, bytes.length);
  }

  /** Reads them. */
  public static byte[] readBytes(DataInputView in) throws IOException {
    int size = read(in);
    if (size < 0) {
      throw new IOException("damaged data: a size of " + size);
    }
    byte[] bytes = new byte[size];
    in.readFully(bytes);
    return bytes;
  }
}
