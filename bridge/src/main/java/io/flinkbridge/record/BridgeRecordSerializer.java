package io.flinkbridge.record;

import java.io.IOException;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.common.typeutils.TypeSerializerSchemaCompatibility;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/**
 * Records on their way between tasks, and where a job keeps them as state:
 *
 * <pre>
 *   flags     1 byte    1: timestamp, 2: headers, 4: key, 8: input or route is not 0
 *   payload   size as varint, bytes
 *   timestamp 8 bytes   if flagged, and so on
 *   headers   size as varint, bytes
 *   key       hash (4 bytes), size as varint, bytes
 *   input, route        varints
 * </pre>
 */
public final class BridgeRecordSerializer extends TypeSerializer<BridgeRecord> {
  public static final BridgeRecordSerializer INSTANCE = new BridgeRecordSerializer();

  private static final long serialVersionUID = 1L;
  private static final int TIMESTAMP = 1;
  private static final int HEADERS = 2;
  private static final int KEY = 4;
  private static final int PORTS = 8;
  private static final byte[] NOTHING = new byte[0];

  private BridgeRecordSerializer() {}

  @Override
  public boolean isImmutableType() {
    return true;
  }

  @Override
  public TypeSerializer<BridgeRecord> duplicate() {
    return this;
  }

  @Override
  public BridgeRecord createInstance() {
    return BridgeRecord.of(NOTHING);
  }

  @Override
  public BridgeRecord copy(BridgeRecord from) {
    return from;
  }

  @Override
  public BridgeRecord copy(BridgeRecord from, BridgeRecord reuse) {
    return from;
  }

  @Override
  public int getLength() {
    return -1;
  }

  @Override
  public void serialize(BridgeRecord record, DataOutputView out) throws IOException {
    byte[] headers = record.headers.wire();
    byte[] key = record.key;
    boolean hasPorts = (record.input | record.route) != 0;
    out.writeByte(
        (record.timestamp != BridgeRecord.NO_TIMESTAMP ? TIMESTAMP : 0)
            | (headers.length > 0 ? HEADERS : 0)
            | (key != null ? KEY : 0)
            | (hasPorts ? PORTS : 0));
    Varint.writeBytes(record.payload, out);
    if (record.timestamp != BridgeRecord.NO_TIMESTAMP) {
      out.writeLong(record.timestamp);
    }
    if (headers.length > 0) {
      Varint.writeBytes(headers, out);
    }
    if (key != null) {
      out.writeInt(record.keyHash);
      Varint.writeBytes(key, out);
    }
    if (hasPorts) {
      Varint.write(record.input, out);
      Varint.write(record.route, out);
    }
  }

  @Override
  public BridgeRecord deserialize(DataInputView in) throws IOException {
    int flags = in.readByte();
    byte[] payload = Varint.readBytes(in);
    long timestamp = (flags & TIMESTAMP) != 0 ? in.readLong() : BridgeRecord.NO_TIMESTAMP;
    Headers headers = (flags & HEADERS) != 0 ? Headers.ofWire(Varint.readBytes(in)) : Headers.EMPTY;
    int keyHash = 0;
    byte[] key = null;
    if ((flags & KEY) != 0) {
      keyHash = in.readInt();
      key = Varint.readBytes(in);
    }
    int input = 0;
    int route = 0;
    if ((flags & PORTS) != 0) {
      input = Varint.read(in);
      route = Varint.read(in);
    }
    return new BridgeRecord(payload, headers, timestamp, key, keyHash, input, route);
  }

  @Override
  public BridgeRecord deserialize(BridgeRecord reuse, DataInputView in) throws IOException {
    return deserialize(in);
  }

  @Override
  public void copy(DataInputView in, DataOutputView out) throws IOException {
    serialize(deserialize(in), out);
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof BridgeRecordSerializer;
  }

  @Override
  public int hashCode() {
    return BridgeRecordSerializer.class.hashCode();
  }

  @Override
  public TypeSerializerSnapshot<BridgeRecord> snapshotConfiguration() {
    return new Snapshot();
  }

  private Object readResolve() {
    return INSTANCE;
  }

  /** The layout's version, as savepoints keep it. */
  public static final class Snapshot implements TypeSerializerSnapshot<BridgeRecord> {
    private static final int VERSION = 1;
    private int version = VERSION;

    @Override
    public int getCurrentVersion() {
      return VERSION;
    }

    @Override
    public void writeSnapshot(DataOutputView out) {}

    @Override
    public void readSnapshot(int readVersion, DataInputView in, ClassLoader loader) {
      version = readVersion;
    }

    @Override
    public TypeSerializer<BridgeRecord> restoreSerializer() {
      return INSTANCE;
    }

    @Override
    public TypeSerializerSchemaCompatibility<BridgeRecord> resolveSchemaCompatibility(
        TypeSerializerSnapshot<BridgeRecord> old) {
      return old instanceof Snapshot snapshot && snapshot.version == VERSION
          ? TypeSerializerSchemaCompatibility.compatibleAsIs()
          : TypeSerializerSchemaCompatibility.incompatible();
    }
  }
}
