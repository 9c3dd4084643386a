package io.flinkbridge.same;

import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;

/**
 * What happens to an operator, made out of a seed: elements out of order and late, watermarks of
 * several channels of which some fall idle, a clock that goes on, checkpoints that complete and
 * others that are given up, failures, other parallelisms, and deaths of the process behind it.
 *
 * @param seed what it was made of
 * @param channels how many channels of upstream there are
 * @param happenings in their order
 */
record Trace(long seed, int channels, List<Happening> happenings) {

  /** One thing that happens. */
  sealed interface Happening {}

  /** An element of a key; {@code timestamp} is its event time. */
  record Element(String key, long id, int value, long timestamp, int input) implements Happening {}

  /** A channel's watermark. */
  record ChannelWatermark(int channel, long timestamp) implements Happening {}

  /** A channel falls idle, or is back. */
  record ChannelStatus(int channel, boolean idle) implements Happening {}

  /** Processing time goes on. */
  record Clock(long milliseconds) implements Happening {}

  /**
   * A checkpoint; one that does not complete is taken by the operator all the same, and then
   * forgotten.
   */
  record Checkpoint(boolean completes) implements Happening {}

  /**
   * The operator is lost and begins again where the last completed checkpoint was, with a
   * parallelism.
   */
  record Failure(int parallelism) implements Happening {}

  /** A savepoint, and a job that goes on from it with another parallelism. */
  record Rescale(int parallelism) implements Happening {}

  /** The process that runs the segment's code is killed: nobody may notice. */
  record Kill() implements Happening {}

  /** The code is loaded anew: nobody may notice. */
  record Reload() implements Happening {}

  /** How many of what a trace has. */
  static final int MAX_PARALLELISM = 4;

  private static final int KEYS = 12;

  /** Makes a trace of some length. {@code inputs}: how many inputs the segment has. */
  static Trace of(long seed, int length, int inputs) {
    SplittableRandom random = new SplittableRandom(seed);
    int channels = 1 + random.nextInt(3);
    boolean isRough = random.nextInt(4) > 0; // the others have neither failures nor deaths
    long spread = 1 + random.nextInt(2_000);
    long now = 0;
    long[] watermarks = new long[channels];
    List<Happening> all = new ArrayList<>();
    for (int i = 0; i < length; i++) {
      int dice = random.nextInt(1_000);
      int channel = random.nextInt(channels);
      now += random.nextInt(20);
      if (dice < 800) {
        long timestamp =
            Math.max(0, now - random.nextLong(spread)); // late where a watermark has passed it
        String key =
            "k" + Math.min(random.nextInt(KEYS), random.nextInt(KEYS)); // some keys come more often
        all.add(
            new Element(
                key,
                random.nextInt(40),
                random.nextInt(-50, 1_000),
                timestamp,
                random.nextInt(inputs)));
      } else if (dice < 880) {
        watermarks[channel] = Math.max(watermarks[channel], now - random.nextLong(spread + 1));
        all.add(new ChannelWatermark(channel, watermarks[channel]));
      } else if (dice < 900) {
        all.add(new ChannelStatus(channel, random.nextBoolean()));
      } else if (dice < 950) {
        all.add(new Clock(1 + random.nextLong(400)));
      } else if (dice < 972) {
        all.add(new Checkpoint(random.nextInt(4) > 0));
      } else if (dice < 985) {
        all.add(isRough ? roughness(random) : new Rescale(1 + random.nextInt(MAX_PARALLELISM)));
      }
    }
    return new Trace(seed, channels, List.copyOf(all));
  }

  private static Happening roughness(SplittableRandom random) {
    return switch (random.nextInt(8)) {
      case 0, 1 -> new Failure(1 + random.nextInt(MAX_PARALLELISM));
      case 2 -> new Rescale(1 + random.nextInt(MAX_PARALLELISM));
      case 3 -> new Reload();
      default -> new Kill();
    };
  }
}
