package io.flinkbridge.operator;

import java.io.Serializable;
import java.time.Duration;
import java.util.List;
import java.util.Objects;

/**
 * What the operator of one segment has to know; the names are those of the descriptor.
 *
 * @param pipeline the pipeline's name
 * @param topologyHash of the descriptor; a sidecar with another one refuses the session
 * @param id the segment's number
 * @param stepName the segment's name
 * @param keyed whether its input is partitioned by key
 * @param maxParallelism how many key groups there are
 * @param routes names of its routes, in their order; empty when it has one output only
 * @param address of the sidecar: {@code unix:/path} or {@code host:port}
 * @param tuning how long it waits, and how much it sends at once
 */
public record SegmentSettings(
    String pipeline,
    String topologyHash,
    int id,
    String stepName,
    boolean keyed,
    int maxParallelism,
    List<String> routes,
    String address,
    Tuning tuning)
    implements Serializable {

  /**
   * Times and sizes.
   *
   * @param connectTimeout how long to wait for a sidecar that is not there
   * @param answerTimeout how long a message may stay unanswered before the attempt fails
   * @param inFlightTime how much work may be on its way to the sidecar and back, in time
   * @param inFlightBytes the same in bytes
   * @param batchBytes how large a batch becomes at most
   */
  public record Tuning(
      Duration connectTimeout,
      Duration answerTimeout,
      Duration inFlightTime,
      int inFlightBytes,
      int batchBytes)
      implements Serializable {

    public Tuning {
      check(isPositive(connectTimeout), "connectTimeout", connectTimeout);
      check(isPositive(answerTimeout), "answerTimeout", answerTimeout);
      check(isPositive(inFlightTime), "inFlightTime", inFlightTime);
      check(inFlightBytes >= 1, "inFlightBytes", inFlightBytes);
      check(batchBytes >= 1, "batchBytes", batchBytes);
    }

    private static boolean isPositive(Duration time) {
      return time.compareTo(Duration.ZERO) > 0;
    }
  }

  public SegmentSettings {
    Objects.requireNonNull(pipeline);
    Objects.requireNonNull(topologyHash);
    Objects.requireNonNull(stepName);
    Objects.requireNonNull(address);
    Objects.requireNonNull(tuning);
    routes = List.copyOf(routes);
    check(id >= 0, "id", id);
    check(maxParallelism >= 1 && maxParallelism <= 32768, "maxParallelism", maxParallelism);
  }

  /** The same with other times and sizes. */
  public SegmentSettings with(Tuning other) {
    return new SegmentSettings(
        pipeline, topologyHash, id, stepName, keyed, maxParallelism, routes, address, other);
  }

  private static void check(boolean isFine, String what, Object value) {
    if (!isFine) {
      throw new IllegalArgumentException("segment settings: " + what + " is " + value);
    }
  }
}
