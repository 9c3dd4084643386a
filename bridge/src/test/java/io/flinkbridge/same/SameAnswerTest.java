package io.flinkbridge.same;

import io.flinkbridge.testing.Size;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * What comes out of the bridge is what comes out of Flink's own operators: per key, in order, with
 * its time, before the same watermark.
 */
class SameAnswerTest {
  static Stream<Case> cases() {
    return Cases.ALL.stream();
  }

  @ParameterizedTest
  @MethodSource("cases")
  void sameAnswerAsFlink(Case subject) throws Exception {
    int traces = Size.choose(6, 60);
    try (Comparison comparison = new Comparison(subject)) {
      for (int seed = 1; seed <= traces; seed++) {
        comparison.compare(seed, 150 + 600 / seed);
      }
    }
  }
}
