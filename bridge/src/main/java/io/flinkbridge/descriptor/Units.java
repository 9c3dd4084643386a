package io.flinkbridge.descriptor;

import java.math.BigInteger;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.OptionalLong;

/** Numbers, sizes and durations as people write them: the same words as the sidecar's. */
final class Units {
  private static final Map<String, Long> SIZES = new LinkedHashMap<>();
  private static final Map<String, Long> DURATIONS = new LinkedHashMap<>(); /* in us */
  private static final BigInteger MOST = BigInteger.valueOf(Long.MAX_VALUE);
  private static final BigInteger MOST_UNSIGNED =
      BigInteger.ONE.shiftLeft(64).subtract(BigInteger.ONE);

  static {
    SIZES.put("TiB", 1L << 40);
    SIZES.put("GiB", 1L << 30);
    SIZES.put("MiB", 1L << 20);
    SIZES.put("KiB", 1L << 10);
    SIZES.put("B", 1L);
    SIZES.put("", 1L);
    DURATIONS.put("h", 3_600_000_000L);
    DURATIONS.put("min", 60_000_000L);
    DURATIONS.put("s", 1_000_000L);
    DURATIONS.put("ms", 1_000L);
    DURATIONS.put("us", 1L);
  }

  private Units() {}

  /** A whole number. */
  static OptionalLong number(String text) {
    return signed(digits(text, text.length()));
  }

  /** A size in bytes. */
  static OptionalLong size(String text) {
    return signed(united(text, SIZES));
  }

  /** A duration in whole milliseconds. */
  static OptionalLong milliseconds(String text) {
    BigInteger zero = digits(text, text.length());
    if (zero != null && zero.signum() == 0) {
      return OptionalLong.of(0);
    }
    BigInteger micros = united(text, DURATIONS);
    if (micros == null || micros.mod(BigInteger.valueOf(1000)).signum() != 0) {
      return OptionalLong.empty();
    }
    return signed(micros.divide(BigInteger.valueOf(1000)));
  }

  /** Milliseconds in the largest unit that divides them. */
  static String writeMilliseconds(long milliseconds) {
    for (Map.Entry<String, Long> unit : DURATIONS.entrySet()) {
      long factor = unit.getValue() / 1000;
      if (milliseconds > 0 && factor > 0 && milliseconds % factor == 0) {
        return milliseconds / factor + unit.getKey();
      }
    }
    return milliseconds == 0 ? "0" : milliseconds + "ms";
  }

  /** Bytes in the largest unit that divides them. */
  static String writeSize(long bytes) {
    for (Map.Entry<String, Long> unit : SIZES.entrySet()) {
      if (bytes > 0 && unit.getValue() > 1 && bytes % unit.getValue() == 0) {
        return bytes / unit.getValue() + unit.getKey();
      }
    }
    return Long.toString(bytes);
  }

  /** Digits and one of some units, or null. */
  private static BigInteger united(String text, Map<String, Long> units) {
    int end = 0;
    while (end < text.length() && text.charAt(end) >= '0' && text.charAt(end) <= '9') {
      end++;
    }
    int unit = end;
    while (unit < text.length() && text.charAt(unit) == ' ') {
      unit++;
    }
    BigInteger number = digits(text, end);
    Long factor = units.get(text.substring(unit));
    if (number == null || factor == null) {
      return null;
    }
    BigInteger value = number.multiply(BigInteger.valueOf(factor));
    return value.compareTo(MOST_UNSIGNED) > 0 ? null : value;
  }

  /** The first characters as a number, or null when one of them is no digit. */
  private static BigInteger digits(String text, int end) {
    if (end == 0 || end > 64) {
      return null;
    }
    for (int i = 0; i < end; i++) {
      if (text.charAt(i) < '0' || text.charAt(i) > '9') {
        return null;
      }
    }
    BigInteger value = new BigInteger(text.substring(0, end));
    return value.compareTo(MOST_UNSIGNED) > 0 ? null : value;
  }

  private static OptionalLong signed(BigInteger value) {
    return value == null || value.compareTo(MOST) > 0
        ? OptionalLong.empty()
        : OptionalLong.of(value.longValue());
  }
}
