package io.flinkbridge.descriptor;

import java.util.Locale;

/** How records reach a segment or sink from what feeds it. */
public enum Partition {
  FORWARD,
  REBALANCE,
  HASH,
  /** Every subtask gets every record. */
  BROADCAST,
  /** By what a program makes of the payload. */
  CUSTOM;

  /** As the descriptor writes it. */
  public String word() {
    return name().toLowerCase(Locale.ROOT);
  }
}
