package io.flinkbridge.operator;

import io.flinkbridge.record.Varint;
import java.io.IOException;
import java.util.function.Function;
import java.util.function.Supplier;
import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/**
 * Bytes in Flink's state, as their size (a varint) and themselves. Nobody writes into an array once
 * it is there, so a copy is the same object: otherwise the heap backend copied every value of a
 * bucket when the first of them changes after a snapshot. The size is a varint because Flink reads
 * checkpoints from local files byte by byte, a system call each.
 */
abstract class SharedSerializer<T> extends TypeSerializer<T> {
  private static final long serialVersionUID = 1L;

  private final transient Function<T, byte[]> toBytes;
  private final transient Function<byte[], T> fromBytes;

  private SharedSerializer(Function<T, byte[]> toBytes, Function<byte[], T> fromBytes) {
    this.toBytes = toBytes;
    this.fromBytes = fromBytes;
  }

  /** For values. */
  static final class OfBytes extends SharedSerializer<byte[]> {
    static final OfBytes INSTANCE = new OfBytes();
    private static final long serialVersionUID = 1L;

    private OfBytes() {
      super(Function.identity(), Function.identity());
    }

    @Override
    public TypeSerializerSnapshot<byte[]> snapshotConfiguration() {
      return new Snapshot();
    }

    private Object readResolve() {
      return INSTANCE;
    }

    /** The format has no settings. */
    public static final class Snapshot extends SimpleTypeSerializerSnapshot<byte[]> {
      public Snapshot() {
        super(instance(INSTANCE));
      }
    }
  }

  /** For names of entries. */
  static final class OfKeys extends SharedSerializer<StateKey> {
    static final OfKeys INSTANCE = new OfKeys();
    private static final long serialVersionUID = 1L;

    private OfKeys() {
      super(StateKey::bytes, StateKey::new);
    }

    @Override
    public TypeSerializerSnapshot<StateKey> snapshotConfiguration() {
      return new Snapshot();
    }

    private Object readResolve() {
      return INSTANCE;
    }

    /** The format has no settings. */
    public static final class Snapshot extends SimpleTypeSerializerSnapshot<StateKey> {
      public Snapshot() {
        super(instance(INSTANCE));
      }
    }
  }

  private static <T> Supplier<TypeSerializer<T>> instance(TypeSerializer<T> serializer) {
    return () -> serializer;
  }

  @Override
  public boolean isImmutableType() {
    return true;
  }

  @Override
  public TypeSerializer<T> duplicate() {
    return this;
  }

  @Override
  public T createInstance() {
    return fromBytes.apply(new byte[StateKey.keyOffset()]);
  }

  @Override
  public T copy(T from) {
    return from;
  }

  @Override
  public T copy(T from, T reuse) {
    return from;
  }

  @Override
  public int getLength() {
    return -1;
  }

  @Override
  public void serialize(T value, DataOutputView out) throws IOException {
    Varint.writeBytes(toBytes.apply(value), out);
  }

  @Override
  public T deserialize(DataInputView in) throws IOException {
    return fromBytes.apply(Varint.readBytes(in));
  }

  @Override
  public T deserialize(T reuse, DataInputView in) throws IOException {
    return deserialize(in);
  }

  @Override
  public void copy(DataInputView in, DataOutputView out) throws IOException {
    serialize(deserialize(in), out);
  }

  @Override
  public boolean equals(Object other) {
    return other != null && other.getClass() == getClass();
  }

  @Override
  public int hashCode() {
    return getClass().hashCode();
  }
}
