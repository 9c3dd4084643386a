package io.flinkbridge.operator;

import java.io.Serializable;
import java.time.Duration;
import java.util.List;
import java.util.Objects;

/**
 * What the operator of one segment has to know; the names of the first eight are those of the
 * descriptor.
 *
 * @param pipeline the pipeline's name
 * @param topologyHash of the descriptor; a sidecar with another one refuses the session
 * @param id the segment's number
 * @param stepName the segment's name
 * @param keyed whether its input is partitioned by key
 * @param maxParallelism how many key groups there are
 * @param inputs how many inputs it has
 * @param routes names of its routes, in their order; empty when it has one output only
 * @param address of the sidecar: {@code unix:/path} or {@code host:port}
 * @param connectTimeout how long to wait for a sidecar that is not there
 * @param answerTimeout how long a message may stay unanswered before the attempt fails
 * @param inFlightTime how much work may be on its way to the sidecar and back, in time
 * @param inFlightBytes the same in bytes
 * @param batchBytes how large a batch becomes at most
 */
public record SegmentSettings(
    String pipeline,
    String topologyHash,
    int id,
    String stepName,
    boolean keyed,
    int maxParallelism,
    int inputs,
    List<String> routes,
    String address,
    Duration connectTimeout,
    Duration answerTimeout,
    Duration inFlightTime,
    int inFlightBytes,
    int batchBytes)
    implements Serializable {

  public static final Duration CONNECT_TIMEOUT = Duration.ofMinutes(1);
  public static final Duration ANSWER_TIMEOUT = Duration.ofMinutes(5);
  public static final Duration IN_FLIGHT_TIME = Duration.ofMillis(100);
  public static final int IN_FLIGHT_BYTES = 8 << 20;
  public static final int BATCH_BYTES = 256 << 10;

  public SegmentSettings {
    Objects.requireNonNull(pipeline);
    Objects.requireNonNull(topologyHash);
    Objects.requireNonNull(stepName);
    Objects.requireNonNull(address);
    routes = List.copyOf(routes);
    check(id >= 0, "id", id);
    check(maxParallelism >= 1 && maxParallelism <= 32768, "maxParallelism", maxParallelism);
    check(inputs >= 1, "inputs", inputs);
    check(isPositive(connectTimeout), "connectTimeout", connectTimeout);
    check(isPositive(answerTimeout), "answerTimeout", answerTimeout);
    check(isPositive(inFlightTime), "inFlightTime", inFlightTime);
    check(inFlightBytes >= 1, "inFlightBytes", inFlightBytes);
    check(batchBytes >= 1, "batchBytes", batchBytes);
  }

  /** With the defaults of all limits and times. */
  public static SegmentSettings of(
      String pipeline,
      String topologyHash,
      int id,
      String stepName,
      boolean keyed,
      int maxParallelism,
      int inputs,
      List<String> routes,
      String address) {
    return new SegmentSettings(
        pipeline,
        topologyHash,
        id,
        stepName,
        keyed,
        maxParallelism,
        inputs,
        routes,
        address,
        CONNECT_TIMEOUT,
        ANSWER_TIMEOUT,
        IN_FLIGHT_TIME,
        IN_FLIGHT_BYTES,
        BATCH_BYTES);
  }

  /** The same with other timeouts. */
  public SegmentSettings withTimeouts(Duration connect, Duration answer) {
    return new SegmentSettings(
        pipeline,
        topologyHash,
        id,
        stepName,
        keyed,
        maxParallelism,
        inputs,
        routes,
        address,
        connect,
        answer,
        inFlightTime,
        inFlightBytes,
        batchBytes);
  }

  /** The same with other bounds on what is in flight. */
  public SegmentSettings withLimits(Duration time, int bytes, int batch) {
    return new SegmentSettings(
        pipeline,
        topologyHash,
        id,
        stepName,
        keyed,
        maxParallelism,
        inputs,
        routes,
        address,
        connectTimeout,
        answerTimeout,
        time,
        bytes,
        batch);
  }

  private static boolean isPositive(Duration time) {
    return time.compareTo(Duration.ZERO) > 0;
  }

  private static void check(boolean isFine, String what, Object value) {
    if (!isFine) {
      throw new IllegalArgumentException("segment settings: " + what + " is " + value);
    }
  }
}
