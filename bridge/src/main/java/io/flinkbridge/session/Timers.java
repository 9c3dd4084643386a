package io.flinkbridge.session;

import java.util.concurrent.ScheduledThreadPoolExecutor;

/**
 * A thread for what must happen at a time, whatever Flink does: its own processing time is stopped
 * before a task takes its last snapshot, and a timer that is set then never fires. One thread for
 * all sessions of a loaded application, gone with the last of them.
 */
public final class Timers {
  private static ScheduledThreadPoolExecutor executor;
  private static int users;

  private Timers() {}

  /** The executor, until it is released as often as it was acquired. */
  public static synchronized ScheduledThreadPoolExecutor acquire() {
    if (users++ == 0) {
      executor =
          new ScheduledThreadPoolExecutor(
              1,
              task -> {
                Thread thread = new Thread(task, "flink-bridge timers");
                thread.setDaemon(true);
                return thread;
              });
      executor.setRemoveOnCancelPolicy(true);
    }
    return executor;
  }

  /** What was set to run once still does. */
  public static synchronized void release() {
    if (--users == 0) {
      executor.shutdown();
      executor = null;
    }
  }
}
