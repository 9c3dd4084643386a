package io.flinkbridge.operator;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import org.junit.jupiter.api.Test;

/** The window against models of a sidecar: it ends up near its time, whatever a record costs. */
final class InFlightWindowTest {
  private static final long MS = 1_000_000;

  private final InFlightWindow window = new InFlightWindow(Duration.ofMillis(100), 1 << 20);
  private long seq;

  /** Fills the window with batches, then answers them all, each record having taken so long. */
  private long fillAndAnswer(long nanosPerRecord) {
    long first = seq + 1;
    int batch = window.batchRecords();
    while (window.hasRoom()) {
      window.sent(++seq, batch, batch);
    }
    long time = 0;
    for (long one = first; one <= seq; one++) {
      time += nanosPerRecord * batch;
      window.answered(one, batch, batch, time);
    }
    return time;
  }

  @Test
  void slowRecordsAreFewInFlight() {
    for (int i = 0; i < 50; i++) {
      fillAndAnswer(40 * MS);
    }
    assertTrue(window.limit() <= 4, "limit " + window.limit());
    assertTrue(fillAndAnswer(40 * MS) <= 200 * MS);
  }

  @Test
  void quickRecordsAreManyInFlight() {
    for (int i = 0; i < 50; i++) {
      fillAndAnswer(MS / 1000);
    }
    assertTrue(window.limit() > 25_000, "limit " + window.limit());
    assertTrue(fillAndAnswer(MS / 1000) <= 150 * MS);
  }

  /**
   * A step that waits for a service answers all in flight together: more in flight is no slower, so
   * the window grows.
   */
  @Test
  void waitingStepsGetAllTheyCanTake() {
    for (int i = 0; i < 50; i++) {
      int batch = window.batchRecords();
      long first = seq + 1;
      while (window.hasRoom()) {
        window.sent(++seq, batch, 1);
      }
      for (long one = first; one <= seq; one++) {
        window.answered(one, batch, 1, 20 * MS);
      }
    }
    assertTrue(window.limit() >= 1 << 20, "limit " + window.limit());
  }

  @Test
  void bytesAreBoundedToo() {
    window.sent(1, 1, 1 << 20);
    assertFalse(window.hasRoom());
    window.answered(1, 1, 1 << 20, MS);
    assertTrue(window.hasRoom());
    assertEquals(0, window.bytes());
    assertEquals(0, window.messages());
  }

  @Test
  void onePassesHoweverLarge() {
    assertTrue(new InFlightWindow(Duration.ofMillis(1), 1).hasRoom());
  }
}
