package io.flinkbridge.record;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.stream.Stream;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.core.memory.DataInputDeserializer;
import org.apache.flink.core.memory.DataOutputSerializer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

/** Records, their headers, hashes and serializer. */
final class BridgeRecordTest {
  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  static Stream<BridgeRecord> records() {
    return Stream.of(
        BridgeRecord.of(""),
        BridgeRecord.of("payload"),
        BridgeRecord.of(bytes("x"), 0),
        BridgeRecord.of(bytes("x"), Long.MAX_VALUE),
        BridgeRecord.of("x").withKey(new byte[0]),
        BridgeRecord.of("x").withInput(300),
        BridgeRecord.of(new byte[100_000]),
        new BridgeRecord(
            bytes("x"),
            Headers.of("a", "b", "ü", ""),
            -1,
            bytes("k"),
            KeyHash.of(bytes("k")),
            1,
            2));
  }

  @ParameterizedTest
  @MethodSource("records")
  void recordsAreReadAsTheyWereWritten(BridgeRecord record) throws IOException {
    DataOutputSerializer out = new DataOutputSerializer(16);
    BridgeRecordSerializer.INSTANCE.serialize(record, out);
    DataInputDeserializer in = new DataInputDeserializer(out.getCopyOfBuffer());
    DataOutputSerializer copied = new DataOutputSerializer(16);
    BridgeRecordSerializer.INSTANCE.copy(in, copied);
    assertEquals(0, in.available());
    assertEquals(
        record,
        BridgeRecordSerializer.INSTANCE.deserialize(
            new DataInputDeserializer(copied.getCopyOfBuffer())));
  }

  @Test
  void damagedRecordsAreRefused() {
    byte[] noEnd = {0, -1, -1, -1, -1, -1, -1};
    assertThrows(
        IOException.class,
        () -> BridgeRecordSerializer.INSTANCE.deserialize(new DataInputDeserializer(noEnd)));
    byte[] cut = {0, 5, 1};
    assertThrows(
        IOException.class,
        () -> BridgeRecordSerializer.INSTANCE.deserialize(new DataInputDeserializer(cut)));
  }

  @Test
  void theSerializersVersionIsKept() throws Exception {
    TypeSerializerSnapshot<BridgeRecord> snapshot =
        BridgeRecordSerializer.INSTANCE.snapshotConfiguration();
    DataOutputSerializer out = new DataOutputSerializer(16);
    TypeSerializerSnapshot.writeVersionedSnapshot(out, snapshot);
    TypeSerializerSnapshot<BridgeRecord> read =
        TypeSerializerSnapshot.readVersionedSnapshot(
            new DataInputDeserializer(out.getCopyOfBuffer()), getClass().getClassLoader());
    assertTrue(snapshot.resolveSchemaCompatibility(read).isCompatibleAsIs());
    assertSame(BridgeRecordSerializer.INSTANCE, read.restoreSerializer());
  }

  @Test
  void flinkFindsTheTypeByItself() {
    assertEquals(BridgeRecordTypeInfo.INSTANCE, TypeInformation.of(BridgeRecord.class));
  }

  @Test
  void headersAreReadFromTheWire() {
    Headers headers = Headers.of(Map.of("name", "value"));
    assertEquals("value", headers.get("name"));
    assertNull(headers.get("other"));
    assertEquals(headers, Headers.ofWire(headers.wire().clone()));
    assertEquals("c", Headers.of("a", "b", "a", "c").get("a"));
    assertTrue(Headers.of().isEmpty());
    assertThrows(IllegalArgumentException.class, () -> Headers.of("a"));
    byte[] cut = java.util.Arrays.copyOf(headers.wire(), headers.wire().length - 1);
    assertThrows(IllegalArgumentException.class, () -> Headers.ofWire(cut).toMap());
  }

  /** The values that the sidecar's own tests have for these keys. */
  @ParameterizedTest
  @CsvSource({
    "'', 953390274",
    "a, 513166879",
    "abc, -1993393840",
    "user-42, -814020147",
    "0123456789abcdef, -654696147",
    "0123456789abcdef0, -621584332"
  })
  void keysHashAsInTheSidecar(String key, int hash) {
    assertEquals(hash, KeyHash.of(bytes(key)));
  }

  @Test
  void longKeysHashAsInTheSidecar() {
    int[][] known = {
      {33, -610588596},
      {240, -325687772},
      {241, -1164546710},
      {1025, -1143224313},
      {5000, 1731860005}
    };
    for (int[] one : known) {
      byte[] key = new byte[one[0]];
      for (int i = 0; i < key.length; i++) {
        key[i] = (byte) (i * 7 + key.length);
      }
      assertEquals(one[1], KeyHash.of(key));
    }
  }

  @Test
  void keyGroupsAreFlinks() {
    assertEquals(29, KeyHash.groupOf(42, 128));
    assertEquals(3613, KeyHash.groupOf(42, 4096));
    assertEquals(0, KeyHash.groupOf(-2089875627, 7));
  }
}
