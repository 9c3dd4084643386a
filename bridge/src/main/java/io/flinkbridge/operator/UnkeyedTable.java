package io.flinkbridge.operator;

import flink_bridge.FlinkBridgeOuterClass.StatePartition;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.OperatorStateStore;

/**
 * State without keys: lists whose pieces may go to any subtask (split) or go to all (union). The
 * table is ours; a checkpoint copies it into Flink's operator state, which lives on the heap and is
 * meant for small things. A batch's pending records are.
 */
final class UnkeyedTable implements StateTable {
  private final OperatorStateStore store;
  private final Manifest manifest;
  private final Map<StateKey, byte[]> entries = new LinkedHashMap<>();

  /** A table of the states of the running code. */
  UnkeyedTable(OperatorStateStore store, Manifest manifest) {
    this.store = store;
    this.manifest = manifest;
  }

  /**
   * Flink's list of a partition. Union lists are only made where a state wants one: Flink refuses
   * checkpoints of half-finished tasks with them.
   */
  private ListState<byte[]> list(StatePartition partition) throws Exception {
    return partition == StatePartition.STATE_UNION
        ? store.getUnionListState(
            new ListStateDescriptor<>("bridge-union", SharedSerializer.OfBytes.INSTANCE))
        : store.getListState(
            new ListStateDescriptor<>("bridge-split", SharedSerializer.OfBytes.INSTANCE));
  }

  @Override
  public void put(StateKey key, byte[] value) {
    entries.put(key, value);
  }

  @Override
  public void remove(StateKey key) {
    entries.remove(key);
  }

  /** Reads what was restored, and forgets it: such entries come anew, under other names. */
  @Override
  public void readAll(Reader reader) throws Exception {
    for (StatePartition partition :
        List.of(StatePartition.STATE_SPLIT, StatePartition.STATE_UNION)) {
      if (manifest.has(partition)) {
        for (byte[] element : list(partition).get()) {
          ByteBuffer buffer = ByteBuffer.wrap(element);
          byte[] key = new byte[buffer.getInt()];
          buffer.get(key);
          byte[] value = new byte[buffer.remaining()];
          buffer.get(value);
          reader.read(new StateKey(key), value);
        }
        list(partition).clear();
      }
    }
  }

  @Override
  public void snapshot() throws Exception {
    for (StatePartition partition :
        List.of(StatePartition.STATE_SPLIT, StatePartition.STATE_UNION)) {
      if (manifest.has(partition)) {
        List<byte[]> elements = new ArrayList<>();
        entries.forEach(
            (key, value) -> {
              if (manifest.partition(manifest.number(key.stateId())) == partition) {
                elements.add(element(key, value));
              }
            });
        list(partition).update(elements);
      }
    }
  }

  private static byte[] element(StateKey key, byte[] value) {
    byte[] name = key.bytes();
    return ByteBuffer.allocate(4 + name.length + value.length)
        .putInt(name.length)
        .put(name)
        .put(value)
        .array();
  }
}
