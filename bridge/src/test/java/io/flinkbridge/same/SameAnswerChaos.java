package io.flinkbridge.same;

import io.flinkbridge.testing.Size;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;

/**
 * The same with seeds that nobody has seen yet, for as long as is asked; they are printed, and
 * `SameAnswerTest` is where a bad one goes.
 */
class SameAnswerChaos {
  @Test
  void sameAnswerAsFlink() throws Exception {
    SplittableRandom seeds = new SplittableRandom(System.nanoTime());
    long end = System.nanoTime() + Size.chaos().toNanos();
    while (System.nanoTime() < end) {
      Case subject = Cases.ALL.get(seeds.nextInt(Cases.ALL.size()));
      try (Comparison comparison = new Comparison(subject)) {
        for (int round = 0; round < 20 && System.nanoTime() < end; round++) {
          long seed = seeds.nextLong(1L << 32);
          System.out.println(subject.name() + ", seed " + seed);
          comparison.compare(seed, 1_000);
        }
      }
    }
  }
}
