package io.flinkbridge.operator;

import flink_bridge.FlinkBridgeOuterClass.RestoreAck;
import flink_bridge.FlinkBridgeOuterClass.StateDeclaration;
import flink_bridge.FlinkBridgeOuterClass.StatePartition;
import io.flinkbridge.session.Answer;
import io.flinkbridge.session.DeltaReader;
import io.flinkbridge.session.ProtocolException;
import io.flinkbridge.session.RestoreChunk;
import io.flinkbridge.session.Session;
import io.flinkbridge.session.SessionException;
import java.io.ByteArrayOutputStream;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.flink.api.common.state.BroadcastState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.typeutils.base.IntSerializer;
import org.apache.flink.runtime.state.KeyedStateBackend;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.util.TimeUtils;
import org.jspecify.annotations.Nullable;

/**
 * The state of a subtask on Flink's side: a table that means nothing to it, and the manifest that
 * says what its entries are.
 *
 * <ol>
 *   <li>Deltas go into the live table as they come, whichever message they come with: what has been
 *       sent once is not sent again, be the checkpoint completed or not.
 *   <li>A checkpoint is Flink's copy of the table at the ack of its barrier.
 *   <li>A restore reads the table out to the sidecar, then forgets entries without keys: they come
 *       anew.
 * </ol>
 *
 * <p>The manifest is broadcast state: all subtasks have the same one, and each gets it back at any
 * parallelism. A union list would do, too, but Flink declines checkpoints of tasks that have
 * finished in part when there is one.
 */
final class StateKeeper {
  private static final int VALUE_MAX = 32 << 20;
  private static final int CHUNK_BYTES = 256 << 10;
  private static final MapStateDescriptor<Integer, byte[]> MANIFEST =
      new MapStateDescriptor<>(
          "bridge-manifest", IntSerializer.INSTANCE, SharedSerializer.OfBytes.INSTANCE);

  private final StateInitializationContext context;
  private final int maxParallelism;
  private final BroadcastState<Integer, byte[]> kept;
  private final Manifest restored;
  private final @Nullable KeyedTable keyed;
  private final DeltaReader delta = new DeltaReader();
  private Manifest manifest = new Manifest(List.of());
  private StateTable table;
  private long nextWakeup;
  private long restoredEntries;
  private @Nullable StateKey partialKey;
  private final ByteArrayOutputStream partialValue = new ByteArrayOutputStream();

  /** Takes what Flink restored; {@code backend} is null for a segment that is not keyed. */
  StateKeeper(
      StateInitializationContext context,
      @Nullable KeyedStateBackend<?> backend,
      int maxParallelism)
      throws Exception {
    this.context = context;
    this.maxParallelism = maxParallelism;
    this.kept = context.getOperatorStateStore().getBroadcastState(MANIFEST);
    this.restored = new Manifest(read(kept));
    this.keyed =
        backend == null
            ? null
            : new KeyedTable(backend, context.getKeyedStateStore(), Buckets.PER_GROUP);
    if (keyed != null && keyed.keyGroups() != maxParallelism) {
      throw new IllegalStateException(
          "the segment has "
              + maxParallelism
              + " key groups and its operator "
              + keyed.keyGroups()
              + ": set the operator's max parallelism to that of the segment");
    }
    this.table =
        keyed != null ? keyed : new UnkeyedTable(context.getOperatorStateStore(), restored);
  }

  private static List<StateDeclaration> read(BroadcastState<Integer, byte[]> kept)
      throws Exception {
    Map<Integer, StateDeclaration> sorted = new TreeMap<>();
    for (Map.Entry<Integer, byte[]> entry : kept.entries()) {
      sorted.put(entry.getKey(), StateDeclaration.parseFrom(entry.getValue()));
    }
    return new ArrayList<>(sorted.values());
  }

  /** The manifest to open a session with; empty when there is nothing to restore. */
  List<StateDeclaration> restoredManifest() {
    return restored.states();
  }

  /** The checkpoint to restore; 0: none. */
  long restoredCheckpoint() {
    return restored.isEmpty() ? 0 : Math.max(1, context.getRestoredCheckpointId().orElse(1));
  }

  /** About how many entries will be restored, where that is cheap to say; else 0. */
  long expectedEntries() {
    return keyed == null || restored.isEmpty() ? 0 : keyed.count();
  }

  /** The session is open: these are the states that it has. Restores what is to be restored. */
  void opened(Session session, List<StateDeclaration> states, int messageMax, Duration timeout)
      throws Exception {
    manifest = new Manifest(states);
    for (int i = 0; i < manifest.size(); i++) {
      boolean isByKey = manifest.partition(i) == StatePartition.STATE_BY_KEY;
      if (isByKey != (keyed != null)) {
        throw new ProtocolException(
            "state "
                + manifest.name(i)
                + " is "
                + manifest.partition(i)
                + " in a segment that is "
                + (keyed == null ? "not " : "")
                + "keyed");
      }
    }
    if (!restored.isEmpty()) {
      restore(session, messageMax, timeout);
    }
    if (keyed == null) {
      table = new UnkeyedTable(context.getOperatorStateStore(), manifest);
    }
    kept.clear();
    for (int i = 0; i < states.size(); i++) {
      kept.put(i, states.get(i).toByteArray());
    }
  }

  // ---- Restore ----

  /**
   * Streams the table to the sidecar, and waits until it is in place. Takes out what is of states
   * that are gone.
   */
  private void restore(Session session, int messageMax, Duration timeout) throws Exception {
    Restore restore = new Restore(session, Math.min(CHUNK_BYTES, messageMax), messageMax, timeout);
    table.readAll(restore);
    restore.finish();
  }

  /** One restore: entries into chunks, chunks into the session as it takes them. */
  private final class Restore implements StateTable.Reader {
    private final Session session;
    private final int chunkBytes;
    private final int messageMax;
    private final Duration timeout;
    private final RestoreChunk chunk;
    private long entries;

    private Restore(Session session, int chunkBytes, int messageMax, Duration timeout) {
      this.session = session;
      this.chunkBytes = chunkBytes;
      this.messageMax = messageMax;
      this.timeout = timeout;
      this.chunk = new RestoreChunk(chunkBytes);
    }

    @Override
    public boolean read(StateKey key, byte[] value) throws Exception {
      int number = restored.number(key.stateId());
      if (number < 0) {
        throw new IllegalStateException(
            "the checkpoint has entries of a state that is not in its manifest");
      }
      int group =
          restored.partition(number) == StatePartition.STATE_BY_KEY
              ? key.keyGroup(maxParallelism)
              : 0;
      int head = RestoreChunk.sizeAtMost(key.keySize(), key.subKeySize(), 0);
      int partMax =
          Math.max(
              chunkBytes - head,
              messageMax / 16); // what a large name leaves of a message, at least
      int at = 0;
      do {
        int left = value.length - at;
        int part = Math.min(left, partMax);
        if (chunk.bytes() > 0 && chunk.bytes() + head + part > chunkBytes) {
          send();
        }
        chunk.add(
            number,
            group,
            key.keyHash(),
            key.bytes(),
            StateKey.keyOffset(),
            key.keySize(),
            key.subKeySize(),
            value,
            at,
            part,
            part < left);
        at += part;
      } while (at < value.length);
      entries++;
      return manifest.number(key.stateId()) >= 0;
    }

    private void send() throws SessionException, InterruptedException {
      if (!session.awaitReady(System.nanoTime() + timeout.toNanos())) {
        throw new SessionException(
            "the sidecar did not go on with the restore within "
                + TimeUtils.formatWithHighestUnit(timeout));
      }
      session.send(chunk);
    }

    private void finish() throws SessionException, InterruptedException {
      if (chunk.bytes() > 0) {
        send();
      }
      session.sendRestoreEnd(entries);
      Answer answer = session.await(Answer.Kind.RESTORE_ACK, System.nanoTime() + timeout.toNanos());
      if (answer == null) {
        throw new SessionException(
            "the sidecar did not acknowledge the restore within "
                + TimeUtils.formatWithHighestUnit(timeout));
      }
      RestoreAck ack = answer.parse(RestoreAck.parser());
      if (ack.getEntries() != entries) {
        throw new ProtocolException(ack.getEntries() + " entries restored of " + entries);
      }
      nextWakeup = answer.nextWakeup();
      restoredEntries = entries;
    }
  }

  /** How many entries were restored. */
  long restoredEntries() {
    return restoredEntries;
  }

  /** When the restored steps want a tick; 0: never. */
  long nextWakeup() {
    return nextWakeup;
  }

  // ---- Deltas ----

  /** Takes a StateDelta over; returns how many entries it had. */
  int apply(Answer answer) throws Exception {
    int entries = 0;
    delta.over(answer);
    while (delta.next()) {
      entries++;
      int number = delta.state();
      if (number < 0 || number >= manifest.size()) {
        throw new ProtocolException(
            "an entry of state " + Integer.toUnsignedLong(number) + " of " + manifest.size());
      }
      StateKey key = nameOf(manifest.id(number));
      if (manifest.partition(number) == StatePartition.STATE_BY_KEY
          && key.keyGroup(maxParallelism) != delta.keyGroup()) {
        throw new ProtocolException(
            "an entry of key group "
                + delta.keyGroup()
                + " whose hash says "
                + key.keyGroup(maxParallelism));
      }
      apply(key);
    }
    return entries;
  }

  private StateKey nameOf(int stateId) {
    return StateKey.of(
        stateId,
        delta.keyHash(),
        delta.array(),
        delta.keyOffset(),
        delta.keySize(),
        delta.subKeyOffset(),
        delta.subKeySize());
  }

  private void apply(StateKey key) throws Exception {
    if (partialKey != null && !partialKey.equals(key)) {
      throw new ProtocolException("another entry within a value");
    }
    if (delta.isRemoved()) {
      table.remove(key);
    } else if (delta.hasMore()) {
      partialKey = key;
      addPart();
    } else if (partialKey != null) {
      addPart();
      table.put(key, partialValue.toByteArray());
      partialValue.reset();
      partialKey = null;
    } else {
      table.put(key, delta.value());
    }
  }

  private void addPart() {
    byte[] part = delta.value();
    if (partialValue.size() + part.length > VALUE_MAX) {
      throw new ProtocolException("a value of more than " + VALUE_MAX + " bytes");
    }
    partialValue.writeBytes(part);
  }

  /** In the synchronous part of a checkpoint. */
  void snapshot() throws Exception {
    if (partialKey != null) {
      throw new ProtocolException("a barrier within a value");
    }
    table.snapshot();
  }
}
