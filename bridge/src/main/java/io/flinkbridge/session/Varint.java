package io.flinkbridge.session;

/** Protobuf's numbers, seven bits a byte, as eight bytes in a word, little end first. */
final class Varint {
  static final int BYTES_MAX = 10;

  private static final long GOES_ON = 0x8080808080808080L;

  private Varint() {}

  /** How many bytes the number takes that begins a word; nine if it goes beyond it. */
  static int sizeIn(long word) {
    return (Long.numberOfTrailingZeros(~word & GOES_ON) >>> 3) + 1;
  }

  /** The number in the first so many bytes of a word, or its lowest 56 bits. */
  static long join(long word, int size) {
    long bits = word & ~GOES_ON & (size < Long.BYTES ? (1L << 8 * size) - 1 : -1);
    bits = (bits & 0x7f007f007f007f00L) >>> 1 | bits & 0x007f007f007f007fL;
    bits = (bits & 0x3fff00003fff0000L) >>> 2 | bits & 0x00003fff00003fffL;
    return (bits & 0x0fffffff00000000L) >>> 4 | bits & 0x000000000fffffffL;
  }

  /** The reverse: the lowest 56 bits of a number that takes so many bytes. */
  static long split(long value, int size) {
    long bits = value & (1L << 56) - 1;
    bits = (bits & 0x00fffffff0000000L) << 4 | bits & 0x000000000fffffffL;
    bits = (bits & 0x0fffc0000fffc000L) << 2 | bits & 0x00003fff00003fffL;
    bits = (bits & 0x3f803f803f803f80L) << 1 | bits & 0x007f007f007f007fL;
    return bits | GOES_ON & (size <= Long.BYTES ? (1L << 8 * (size - 1)) - 1 : -1);
  }
}
