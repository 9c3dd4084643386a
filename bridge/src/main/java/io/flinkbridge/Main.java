package io.flinkbridge;

/** The application's entry point: turns a descriptor into a Flink job and submits it. */
public final class Main {
  private Main() {}

  /** Runs it. */
  public static void main(String[] args) {
    System.out.println("flink-bridge");
  }
}
