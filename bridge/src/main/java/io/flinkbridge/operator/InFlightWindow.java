package io.flinkbridge.operator;

import java.time.Duration;

/**
 * How much may be on its way to the sidecar and back. A barrier waits for all of it, so it is kept
 * near a time: whoever waits longer than that for an answer sends less, whoever is held up by the
 * window though answers are quick sends more. Steps that wait for services need no other rule: more
 * in flight is answered as quickly, and so the window grows.
 *
 * <p>It changes once per round: what was sent before a change says nothing about it, and of what is
 * sent behind one another the first has nobody before it, so the slowest counts.
 */
final class InFlightWindow {
  private static final int FIRST_LIMIT = 64;
  private static final int LIMIT_MAX = 1 << 20;
  private static final int BATCHES = 4;

  private final long targetNanos;
  private final int maxBytes;
  private int limit = FIRST_LIMIT;
  private int records;
  private int bytes;
  private int messages;
  private long lastSent;
  private long changedAt;
  private long decideAt;
  private long worst;
  private boolean wasFull;

  InFlightWindow(Duration target, int maxBytes) {
    this.targetNanos = target.toNanos();
    this.maxBytes = maxBytes;
  }

  /** Whether more may be sent. */
  boolean hasRoom() {
    boolean hasRoom = messages == 0 || records < limit && bytes < maxBytes;
    wasFull |= !hasRoom;
    return hasRoom;
  }

  /** How many records a batch should have at most, for several to fit. */
  int batchRecords() {
    return Math.max(1, limit / BATCHES);
  }

  int records() {
    return records;
  }

  int bytes() {
    return bytes;
  }

  int messages() {
    return messages;
  }

  int limit() {
    return limit;
  }

  /** Takes note of a message that was sent; those that are no batch count as a record. */
  void sent(long seq, int messageRecords, int messageBytes) {
    messages++;
    records += messageRecords;
    bytes += messageBytes;
    lastSent = seq;
  }

  /** Takes note of the last answer to a message. */
  void answered(long seq, int messageRecords, int messageBytes, long nanos) {
    messages--;
    records -= messageRecords;
    bytes -= messageBytes;
    if (seq <= changedAt) {
      return;
    }
    if (decideAt == 0) {
      decideAt = lastSent;
    }
    worst = Math.max(worst, nanos);
    if (seq >= decideAt) {
      decide();
    }
  }

  private void decide() {
    if (worst > targetNanos) {
      double ratio = Math.max(0.5, (double) targetNanos / worst);
      limit = Math.max(1, (int) (limit * ratio));
    } else if (wasFull && worst < targetNanos / 2) {
      limit = Math.min(LIMIT_MAX, limit * 2);
    }
    wasFull = false;
    worst = 0;
    decideAt = 0;
    changedAt = lastSent;
  }
}
