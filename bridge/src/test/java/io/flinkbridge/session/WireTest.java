package io.flinkbridge.session;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import flink_bridge.FlinkBridgeOuterClass.FromWorker;
import flink_bridge.FlinkBridgeOuterClass.Record;
import flink_bridge.FlinkBridgeOuterClass.Results;
import flink_bridge.FlinkBridgeOuterClass.StateDelta;
import flink_bridge.FlinkBridgeOuterClass.StateEntry;
import flink_bridge.FlinkBridgeOuterClass.ToWorker;
import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.Headers;
import io.flinkbridge.record.KeyHash;
import java.io.ByteArrayInputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;

/**
 * What is written and read by hand, against the generated classes; random messages, from a seed
 * that is printed.
 */
final class WireTest {
  private final long seed = System.nanoTime();
  private final Random random = new Random(seed);

  private byte[] bytes(int most) {
    byte[] bytes = new byte[random.nextInt(most + 1)];
    random.nextBytes(bytes);
    return bytes;
  }

  private long number() {
    return random.nextLong() >> random.nextInt(64);
  }

  /** A time of any length, 1970, or none. */
  private long timestamp() {
    return switch (random.nextInt(5)) {
      case 0 -> BridgeRecord.NO_TIMESTAMP;
      case 1 -> 0;
      default -> number();
    };
  }

  private BridgeRecord randomRecord() {
    Headers headers =
        random.nextBoolean() ? Headers.EMPTY : Headers.of("h" + random.nextInt(10), "v", "ü", "");
    BridgeRecord record =
        new BridgeRecord(bytes(300), headers, timestamp(), null, 0, random.nextInt(3), 0);
    return random.nextBoolean() ? record : record.withKey(bytes(40));
  }

  private static Record expected(BridgeRecord record, int maxParallelism) {
    Record.Builder builder =
        Record.newBuilder()
            .setPayload(ByteString.copyFrom(record.payload))
            .putAllHeaders(record.headers.toMap())
            .setInput(record.input);
    if (record.timestamp != BridgeRecord.NO_TIMESTAMP) {
      builder.setTimestamp(record.timestamp);
    }
    if (record.key != null) {
      builder.setKey(ByteString.copyFrom(record.key)).setKeyHash(record.keyHash);
    }
    return maxParallelism == 0
        ? builder.build()
        : builder.setKeyGroup(KeyHash.groupOf(record.keyHash, maxParallelism)).build();
  }

  @Test
  void batchesAreWhatTheGeneratedClassesRead() throws Exception {
    for (int maxParallelism : new int[] {0, 128}) {
      Batch batch = new Batch(16, maxParallelism);
      for (int round = 1; round <= 50; round++) {
        List<Record> expected = new ArrayList<>();
        for (int i = random.nextInt(20); i >= 0; i--) {
          BridgeRecord record = randomRecord();
          int before = batch.bytes();
          int size = batch.sizeOf(record, record.timestamp);
          batch.add(record, record.timestamp, size);
          assertEquals(Batch.sizeWithHead(size), batch.bytes() - before, "seed " + seed);
          expected.add(expected(record, maxParallelism));
        }
        long time = Math.abs(number());
        WireWriter out = batch.finish(round, time);
        ToWorker read =
            ToWorker.parseFrom(
                Arrays.copyOfRange(out.array(), out.begin(), out.begin() + out.messageSize()));
        assertEquals(round, read.getSeq());
        assertEquals(time, read.getProcessingTimeMs());
        assertEquals(expected, read.getBatch().getRecordsList(), "seed " + seed);
        batch.reset();
      }
    }
  }

  @Test
  void resultsAreReadAsTheGeneratedClassesWriteThem() {
    AnswerReader reader = new AnswerReader();
    List<List<BridgeRecord>> read = new ArrayList<>();
    List<Results> written = new ArrayList<>();
    for (int round = 1; round <= 100; round++) {
      Results.Builder results = Results.newBuilder().setMore(random.nextBoolean());
      for (int i = random.nextInt(10); i > 0; i--) {
        Record.Builder record =
            Record.newBuilder()
                .setPayload(ByteString.copyFrom(bytes(300)))
                .setRoute(random.nextInt(4));
        if (random.nextBoolean()) {
          record.setTimestamp(timestamp());
        }
        for (int h = random.nextInt(3); h > 0; h--) {
          record.putHeaders("name" + h, "value " + h);
        }
        if (random.nextBoolean()) {
          record.setKey(ByteString.copyFrom(bytes(20))).setKeyHash(random.nextInt());
        }
        results.addRecords(record);
      }
      long wakeup = number();
      Answer answer =
          answer(
              reader,
              FromWorker.newBuilder()
                  .setSeq(round)
                  .setNextWakeupMs(wakeup)
                  .setResults(results)
                  .build()
                  .toByteArray());
      assertEquals(Answer.Kind.RESULTS, answer.kind());
      assertEquals(round, answer.seq());
      assertEquals(wakeup, answer.nextWakeup());
      assertEquals(results.build().getSerializedSize(), answer.size());
      assertEquals(results.getMore(), answer.hasMore());
      read.add(answer.records());
      written.add(results.build());
    }
    for (int i = 0; i < read.size(); i++) { // all of them have outlived their messages
      assertRecords(written.get(i).getRecordsList(), read.get(i));
    }
  }

  /** What a session gets in place of such a message. */
  private static Answer answer(AnswerReader reader, byte[] message) {
    return assertInstanceOf(Answer.class, reader.parse(new ByteArrayInputStream(message)));
  }

  private void assertRecords(List<Record> written, List<BridgeRecord> read) {
    assertEquals(written.size(), read.size());
    for (int i = 0; i < written.size(); i++) {
      assertEquals(
          written.get(i).getPayload(), ByteString.copyFrom(read.get(i).payload), "seed " + seed);
      assertEquals(written.get(i).getHeadersMap(), read.get(i).headers.toMap());
      assertEquals(
          written.get(i).hasTimestamp() ? written.get(i).getTimestamp() : BridgeRecord.NO_TIMESTAMP,
          read.get(i).timestamp);
      assertEquals(written.get(i).getRoute(), read.get(i).route);
      assertEquals(written.get(i).hasKey(), read.get(i).key != null);
      assertEquals(written.get(i).getKeyHash(), read.get(i).keyHash);
    }
  }

  /**
   * Whatever comes, it ends in a record or in a ProtocolException, never past the end of an array.
   */
  @Test
  void damagedMessagesAreRefused() {
    byte[] good =
        FromWorker.newBuilder()
            .setSeq(5)
            .setResults(
                Results.newBuilder()
                    .addRecords(
                        Record.newBuilder()
                            .setPayload(ByteString.copyFrom("payload", StandardCharsets.UTF_8))
                            .putHeaders("a", "b")
                            .setTimestamp(-5)
                            .setKeyHash(7)))
            .build()
            .toByteArray();
    AnswerReader reader = new AnswerReader();
    int refused = 0;
    for (int round = 0; round < 20_000; round++) {
      byte[] bad = Arrays.copyOf(good, random.nextInt(good.length) + 1);
      for (int i = random.nextInt(3); i >= 0; i--) {
        bad[random.nextInt(bad.length)] = (byte) random.nextInt();
      }
      Object read = reader.parse(new ByteArrayInputStream(bad));
      if (read instanceof ProtocolException) {
        refused++;
      } else {
        assertInstanceOf(Answer.class, read);
      }
    }
    assertTrue(refused > 1000);
    Object empty = reader.parse(new ByteArrayInputStream(new byte[0]));
    assertTrue(
        assertInstanceOf(ProtocolException.class, empty)
            .getMessage()
            .endsWith("a message without a kind"));
  }

  @Test
  void answersOfAnySizeAreReadByOneReader() {
    AnswerReader reader = new AnswerReader();
    for (int size : new int[] {0, 1, 5_000, 300_000, 7, 3 << 20, 100, 1 << 20}) {
      byte[] bytes = new byte[size];
      random.nextBytes(bytes);
      StateDelta delta =
          StateDelta.newBuilder()
              .addEntries(StateEntry.newBuilder().setValue(ByteString.copyFrom(bytes)))
              .build();
      Answer told =
          answer(
              reader,
              FromWorker.newBuilder().setSeq(size).setStateDelta(delta).build().toByteArray());
      Record record = Record.newBuilder().setPayload(ByteString.copyFrom(bytes)).build();
      Answer results =
          answer(
              reader,
              FromWorker.newBuilder()
                  .setResults(Results.newBuilder().addRecords(record))
                  .build()
                  .toByteArray());
      assertRecords(List.of(record), results.records());
      assertEquals(size, told.seq());
      assertArrayEquals(delta.toByteArray(), told.content());
    }
  }
}
