package io.flinkbridge.record;

import net.openhft.hashing.LongHashFunction;
import org.apache.flink.runtime.state.KeyGroupRangeAssignment;

/**
 * The hash of a key, as the sidecar's {@code key_by} has it too. Flink's key group follows from it.
 */
public final class KeyHash {
  private static final LongHashFunction XXH3 = LongHashFunction.xx3();

  private KeyHash() {}

  /** The low 32 bits of XXH3-64 (seed 0) of the key's bytes. */
  public static int of(byte[] key) {
    return (int) XXH3.hashBytes(key);
  }

  /** The key group that Flink puts a key with this hash into. */
  public static int groupOf(int keyHash, int maxParallelism) {
    return KeyGroupRangeAssignment.computeKeyGroupForKeyHash(keyHash, maxParallelism);
  }
}
