package io.flinkbridge.operator;

import io.flinkbridge.session.ProtocolException;
import java.util.Iterator;
import java.util.Map;
import org.apache.flink.api.common.state.KeyedStateStore;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.typeutils.base.IntSerializer;
import org.apache.flink.runtime.state.AbstractKeyedStateBackend;
import org.apache.flink.runtime.state.KeyGroupRange;
import org.apache.flink.runtime.state.KeyedStateBackend;
import org.apache.flink.util.FlinkRuntimeException;

/**
 * State by key, in Flink's managed keyed state: one map per bucket. Every put is in the next
 * checkpoint, incremental ones too.
 */
final class KeyedTable implements StateTable {
  private static final String NAME = "bridge-state";

  private final AbstractKeyedStateBackend<Integer> backend;
  private final MapState<StateKey, byte[]> map;
  private final KeyGroupRange range;
  private final Buckets buckets;

  KeyedTable(KeyedStateBackend<?> backend, KeyedStateStore store, int perGroup) throws Exception {
    this.backend = (AbstractKeyedStateBackend<Integer>) checked(backend);
    this.map =
        store.getMapState(
            new MapStateDescriptor<>(
                NAME, SharedSerializer.OfKeys.INSTANCE, SharedSerializer.OfBytes.INSTANCE));
    this.range = this.backend.getKeyGroupRange();
    this.buckets = new Buckets(range, this.backend.getNumberOfKeyGroups(), perGroup);
  }

  /** Buckets are ints, so the stream's keys must be. */
  @SuppressWarnings("unchecked")
  private static KeyedStateBackend<Integer> checked(KeyedStateBackend<?> backend) {
    if (!IntSerializer.INSTANCE.equals(backend.getKeySerializer())) {
      throw new IllegalStateException("key the stream by BridgeRecord.keyHash, as an Integer");
    }
    return (KeyedStateBackend<Integer>) backend;
  }

  /** How many key groups Flink has for the operator. */
  int keyGroups() {
    return backend.getNumberOfKeyGroups();
  }

  private void select(StateKey key) {
    int group = key.keyGroup(backend.getNumberOfKeyGroups());
    if (!range.contains(group)) {
      throw new ProtocolException(
          "state of key group " + group + ", and this subtask has " + range);
    }
    backend.setCurrentKeyAndKeyGroup(buckets.of(group, key.keyHash()), group);
  }

  @Override
  public void put(StateKey key, byte[] value) throws Exception {
    select(key);
    map.put(key, value);
  }

  @Override
  public void remove(StateKey key) throws Exception {
    select(key);
    map.remove(key);
  }

  /**
   * How many entries there are, on the heap; 0 on other backends, which would have to read them
   * all.
   */
  long count() {
    if (!backend.getBackendTypeIdentifier().equals("hashmap")) {
      return 0;
    }
    long[] seen = new long[1];
    try {
      readAll(
          (key, value) -> {
            seen[0]++;
            return true;
          });
    } catch (Exception e) {
      throw new FlinkRuntimeException("reading restored state", e);
    }
    return seen[0];
  }

  @Override
  public void readAll(Reader reader) throws Exception {
    for (int i = 0; i < buckets.count(); i++) {
      backend.setCurrentKeyAndKeyGroup(buckets.key(i), buckets.keyGroup(i));
      Iterable<Map.Entry<StateKey, byte[]>> entries = map.entries();
      for (Iterator<Map.Entry<StateKey, byte[]>> at = entries.iterator(); at.hasNext(); ) {
        Map.Entry<StateKey, byte[]> entry = at.next();
        if (!reader.read(entry.getKey(), entry.getValue())) {
          at.remove();
        }
      }
    }
  }

  @Override
  public void snapshot() {}
}
