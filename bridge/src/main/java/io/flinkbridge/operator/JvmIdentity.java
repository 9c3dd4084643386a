package io.flinkbridge.operator;

import java.util.UUID;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Who this process is to the sidecar, and which of its Opens is the newest. Both are the JVM's, not
 * this class's: Flink loads the application anew for each job, and a second identity would end the
 * sessions of the first.
 */
final class JvmIdentity {
  private static final String PROPERTY = "io.flinkbridge.jvm";
  private static final AtomicLong LAST_TOKEN = new AtomicLong(Long.MIN_VALUE);

  private JvmIdentity() {}

  /** One per life of the JVM. */
  static String uuid() {
    return (String)
        System.getProperties().computeIfAbsent(PROPERTY, name -> UUID.randomUUID().toString());
  }

  /** Larger with each call; two loaders' tokens differ in time, which is one for the whole JVM. */
  static long nextToken() {
    long now = System.nanoTime();
    return LAST_TOKEN.updateAndGet(last -> Math.max(last + 1, now));
  }
}
