package io.flinkbridge.testing;

import java.time.Duration;

/**
 * How much tests do: {@code bridge.size} is {@code small} in {@code make test}, {@code full} in
 * {@code make test-full}.
 */
public final class Size {
  private Size() {}

  /** The first number when tests are to be short, the second when they may take long. */
  public static int choose(int small, int full) {
    return System.getProperty("bridge.size", "small").equals("small") ? small : full;
  }

  /** How long chaos goes on: CHAOS_SECONDS of the environment. */
  public static Duration chaos() {
    String seconds = System.getenv("CHAOS_SECONDS");
    return Duration.ofSeconds(seconds == null ? 60 : Long.parseLong(seconds));
  }
}
