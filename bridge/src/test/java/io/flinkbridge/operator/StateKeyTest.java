package io.flinkbridge.operator;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.nio.charset.StandardCharsets;
import java.util.HashSet;
import java.util.Set;
import org.apache.flink.core.memory.DataInputDeserializer;
import org.apache.flink.core.memory.DataOutputSerializer;
import org.apache.flink.runtime.state.KeyGroupRange;
import org.apache.flink.runtime.state.KeyGroupRangeAssignment;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What entries are called, and the keys that Flink sees. */
final class StateKeyTest {
  private static StateKey key(int state, int hash, String key, String sub) {
    byte[] from = (key + sub).getBytes(StandardCharsets.UTF_8);
    return StateKey.of(state, hash, from, 0, key.length(), key.length(), sub.length());
  }

  @Test
  void namesAreEqualByContent() {
    assertEquals(key(1, 2, "ab", "c"), key(1, 2, "ab", "c"));
    assertEquals(key(1, 2, "ab", "c").hashCode(), key(1, 2, "ab", "c").hashCode());
    assertNotEquals(key(1, 2, "ab", "c"), key(1, 2, "a", "bc"));
    assertNotEquals(key(1, 2, "ab", "c"), key(2, 2, "ab", "c"));
    assertNotEquals(key(1, 2, "ab", "c"), key(1, 3, "ab", "c"));
  }

  @Test
  void namesAreReadAsTheyWereWritten() throws Exception {
    StateKey key = key(-7, 1 << 31, "key", "");
    DataOutputSerializer out = new DataOutputSerializer(16);
    SharedSerializer.OfKeys.INSTANCE.serialize(key, out);
    StateKey read =
        SharedSerializer.OfKeys.INSTANCE.deserialize(
            new DataInputDeserializer(out.getCopyOfBuffer()));
    assertEquals(key, read);
    assertEquals(-7, read.stateId());
    assertEquals(1 << 31, read.keyHash());
    assertEquals(3, read.keySize());
    assertEquals(0, read.subKeySize());
    assertArrayEquals(key.bytes(), read.bytes());
  }

  @Test
  void damagedNamesAreRefused() {
    assertThrows(IllegalArgumentException.class, () -> new StateKey(new byte[11]));
    byte[] bytes = key(1, 2, "ab", "c").bytes().clone();
    bytes[11] = 100;
    assertThrows(IllegalArgumentException.class, () -> new StateKey(bytes));
  }

  /**
   * Flink puts each bucket into the group that it was made for; otherwise a rescale would lose it.
   */
  @ParameterizedTest
  @ValueSource(ints = {1, 7, 128, 32768})
  void bucketsAreInTheirGroups(int maxParallelism) {
    Buckets buckets =
        new Buckets(KeyGroupRange.of(0, maxParallelism - 1), maxParallelism, Buckets.PER_GROUP);
    Set<Integer> seen = new HashSet<>();
    for (int i = 0; i < buckets.count(); i++) {
      assertEquals(
          buckets.keyGroup(i),
          KeyGroupRangeAssignment.assignToKeyGroup(buckets.key(i), maxParallelism));
      seen.add(buckets.key(i));
    }
    assertEquals(maxParallelism * Buckets.PER_GROUP, seen.size());
  }

  /**
   * The first savepoints that there were are found by those who come later: these values never
   * change.
   */
  @Test
  void bucketsAreTheFormatOfSavepoints() {
    Buckets all = new Buckets(KeyGroupRange.of(0, 127), 128, Buckets.PER_GROUP);
    Buckets some = new Buckets(KeyGroupRange.of(40, 60), 128, Buckets.PER_GROUP);
    long sum = 0;
    for (int hash = -100_000; hash < 100_000; hash++) {
      int group = KeyGroupRangeAssignment.computeKeyGroupForKeyHash(hash, 128);
      sum = sum * 31 + all.of(group, hash);
      if (group >= 40 && group <= 60) {
        assertEquals(all.of(group, hash), some.of(group, hash));
      }
    }
    assertEquals(3190212017306068200L, sum);
  }
}
