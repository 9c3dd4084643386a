package io.flinkbridge.operator;

import io.flinkbridge.record.KeyHash;
import java.util.Arrays;

/**
 * What an entry of state is called: (state, key, sub-key), and the key's hash with it. Immutable.
 * It is the user key of a Flink map, which a bare {@code byte[]} cannot be: arrays are equal to
 * themselves only.
 *
 * <pre>
 *   state id 4 bytes | key hash 4 bytes | size of the key 4 bytes | key | sub-key
 * </pre>
 *
 * The state's id is that of its names (see {@link Manifest}), because its number may be another one
 * after a restart.
 */
final class StateKey {
  private static final int HEAD = 12;

  private final byte[] bytes;
  private final int hash;

  /** Takes over bytes in the layout above, which must not change any more. */
  StateKey(byte[] bytes) {
    if (bytes.length < HEAD || intAt(bytes, 8) < 0 || intAt(bytes, 8) > bytes.length - HEAD) {
      throw new IllegalArgumentException(
          "damaged name of a state entry, " + bytes.length + " bytes");
    }
    this.bytes = bytes;
    this.hash = hashOf(bytes);
  }

  /** The name of an entry whose key and sub-key lie somewhere in an array. */
  static StateKey of(
      int stateId, int keyHash, byte[] from, int keyAt, int keySize, int subKeyAt, int subKeySize) {
    byte[] bytes = new byte[HEAD + keySize + subKeySize];
    putInt(bytes, 0, stateId);
    putInt(bytes, 4, keyHash);
    putInt(bytes, 8, keySize);
    System.arraycopy(from, keyAt, bytes, HEAD, keySize);
    System.arraycopy(from, subKeyAt, bytes, HEAD + keySize, subKeySize);
    return new StateKey(bytes);
  }

  /** Of state, key (which has a good hash already) and sub-key. */
  private static int hashOf(byte[] bytes) {
    int hash = intAt(bytes, 0) * 31 + intAt(bytes, 4);
    for (int i = HEAD + intAt(bytes, 8); i < bytes.length; i++) {
      hash = hash * 31 + bytes[i];
    }
    return hash;
  }

  int stateId() {
    return intAt(bytes, 0);
  }

  int keyHash() {
    return intAt(bytes, 4);
  }

  int keySize() {
    return intAt(bytes, 8);
  }

  int subKeySize() {
    return bytes.length - HEAD - keySize();
  }

  /** Where the key begins in {@link #bytes}; the sub-key lies behind it. */
  static int keyOffset() {
    return HEAD;
  }

  /** All of it. Must not be changed. */
  byte[] bytes() {
    return bytes;
  }

  int keyGroup(int maxParallelism) {
    return KeyHash.groupOf(keyHash(), maxParallelism);
  }

  private static int intAt(byte[] bytes, int at) {
    return bytes[at] << 24
        | (bytes[at + 1] & 0xff) << 16
        | (bytes[at + 2] & 0xff) << 8
        | bytes[at + 3] & 0xff;
  }

  private static void putInt(byte[] bytes, int at, int value) {
    bytes[at] = (byte) (value >> 24);
    bytes[at + 1] = (byte) (value >> 16);
    bytes[at + 2] = (byte) (value >> 8);
    bytes[at + 3] = (byte) value;
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof StateKey key && hash == key.hash && Arrays.equals(bytes, key.bytes);
  }

  @Override
  public int hashCode() {
    return hash;
  }
}
