package io.flinkbridge.operator;

import io.flinkbridge.record.KeyHash;
import org.apache.flink.runtime.state.KeyGroupRange;

/**
 * The keys that Flink sees. Its state has one map per key; one per record key would cost RocksDB an
 * iterator per key on restore, one per key group would have the heap copy a whole group's map for
 * the first change after a checkpoint. So each key group has {@link #PER_GROUP} buckets, and an
 * entry goes to one of its group's by the hash of its key.
 *
 * <p>A bucket's key is an int that Flink puts into the right group: the n-th that does, counted
 * from 0. Which they are follows from the max parallelism alone. <b>They are the format of
 * savepoints</b>: another number of buckets would not find what is there. docs/flink-operator.md
 * has the measurements behind it.
 */
final class Buckets {
  /** A power of two. */
  static final int PER_GROUP = 16;

  private static final int MIX =
      0x9e3779b1; // 2^32 by the golden ratio: spreads what the key group has not used

  private final int first;
  private final int perGroup;
  private final int shift;
  private final Integer[] keys;

  /** {@code perGroup} is {@link #PER_GROUP}, but where others are measured. */
  Buckets(KeyGroupRange range, int maxParallelism, int perGroup) {
    this.first = range.getStartKeyGroup();
    this.perGroup = perGroup;
    this.shift = 32 - Integer.numberOfTrailingZeros(perGroup);
    this.keys = new Integer[range.getNumberOfKeyGroups() * perGroup];
    int[] found = new int[range.getNumberOfKeyGroups()];
    int left = keys.length;
    for (int candidate = 0; left > 0; candidate++) {
      int group = KeyHash.groupOf(candidate, maxParallelism) - first;
      if (group >= 0 && group < found.length && found[group] < perGroup) {
        keys[group * perGroup + found[group]++] = candidate;
        left--;
      }
    }
  }

  /** The bucket of a key with this hash in this group. */
  Integer of(int keyGroup, int keyHash) {
    int bucket = shift == 32 ? 0 : keyHash * MIX >>> shift;
    return keys[(keyGroup - first) * perGroup + bucket];
  }

  /** How many there are in all groups of the range. */
  int count() {
    return keys.length;
  }

  /** One of them, and its key group. */
  Integer key(int index) {
    return keys[index];
  }

  int keyGroup(int index) {
    return first + index / perGroup;
  }
}
