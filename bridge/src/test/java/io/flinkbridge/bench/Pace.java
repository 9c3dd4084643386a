package io.flinkbridge.bench;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import org.apache.flink.api.connector.source.lib.NumberSequenceSource.NumberSequenceSplit;
import org.apache.flink.api.connector.source.util.ratelimit.RateLimiter;
import org.apache.flink.api.connector.source.util.ratelimit.RateLimiterStrategy;

/**
 * So many records a second, in small bursts every millisecond. Flink's own limiter makes a future
 * on another thread for each record, which no source of a million records a second bears.
 */
final class Pace implements RateLimiterStrategy<NumberSequenceSplit> {
  private static final long serialVersionUID = 1L;

  private final double perSecond;

  Pace(double perSecond) {
    this.perSecond = perSecond;
  }

  @Override
  public RateLimiter<NumberSequenceSplit> createRateLimiter(int parallelism) {
    return new Limiter(perSecond / parallelism / 1e9);
  }

  private static final class Limiter implements RateLimiter<NumberSequenceSplit> {
    private static final CompletionStage<Void> NOW = CompletableFuture.completedStage(null);
    private static final Executor SOON =
        CompletableFuture.delayedExecutor(1, TimeUnit.MILLISECONDS);

    private final double perNano;
    private long begin;
    private long due;
    private long taken;

    Limiter(double perNano) {
      this.perNano = perNano;
    }

    @Override
    public CompletionStage<Void> acquire(int records) {
      taken += records;
      return taken <= due || look() ? NOW : CompletableFuture.runAsync(() -> {}, SOON);
    }

    /** Whether what was taken is due by now. */
    private boolean look() {
      long now = System.nanoTime();
      if (begin == 0) {
        begin = now;
      }
      due = (long) ((now - begin) * perNano);
      return taken <= due;
    }
  }
}
