package io.flinkbridge.job;

/** A pipeline or a setting that Flink cannot do; the message says what, where and what to do. */
public final class UnfitException extends IllegalArgumentException {
  private static final long serialVersionUID = 1;

  UnfitException(String message) {
    super(message);
  }
}
