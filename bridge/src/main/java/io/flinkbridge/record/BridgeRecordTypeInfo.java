package io.flinkbridge.record;

import java.lang.reflect.Type;
import java.util.Map;
import org.apache.flink.api.common.serialization.SerializerConfig;
import org.apache.flink.api.common.typeinfo.TypeInfoFactory;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeutils.TypeSerializer;

/** What Flink has to know about {@link BridgeRecord}. */
public final class BridgeRecordTypeInfo extends TypeInformation<BridgeRecord> {
  public static final BridgeRecordTypeInfo INSTANCE = new BridgeRecordTypeInfo();

  private static final long serialVersionUID = 1L;

  private BridgeRecordTypeInfo() {}

  @Override
  public boolean isBasicType() {
    return false;
  }

  @Override
  public boolean isTupleType() {
    return false;
  }

  @Override
  public int getArity() {
    return 1;
  }

  @Override
  public int getTotalFields() {
    return 1;
  }

  @Override
  public Class<BridgeRecord> getTypeClass() {
    return BridgeRecord.class;
  }

  @Override
  public boolean isKeyType() {
    return false;
  }

  @Override
  public TypeSerializer<BridgeRecord> createSerializer(SerializerConfig config) {
    return BridgeRecordSerializer.INSTANCE;
  }

  @Override
  public String toString() {
    return "BridgeRecord";
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof BridgeRecordTypeInfo;
  }

  @Override
  public int hashCode() {
    return BridgeRecordTypeInfo.class.hashCode();
  }

  @Override
  public boolean canEqual(Object other) {
    return other instanceof BridgeRecordTypeInfo;
  }

  private Object readResolve() {
    return INSTANCE;
  }

  /** Finds the type information for user code that names the class alone. */
  public static final class Factory extends TypeInfoFactory<BridgeRecord> {
    @Override
    public TypeInformation<BridgeRecord> createTypeInfo(
        Type type, Map<String, TypeInformation<?>> parameters) {
      return INSTANCE;
    }
  }
}
