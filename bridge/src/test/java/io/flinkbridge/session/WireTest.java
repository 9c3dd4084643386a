package io.flinkbridge.session;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import flink_bridge.FlinkBridgeOuterClass.FromWorker;
import flink_bridge.FlinkBridgeOuterClass.Record;
import flink_bridge.FlinkBridgeOuterClass.Results;
import flink_bridge.FlinkBridgeOuterClass.ToWorker;
import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.Headers;
import io.flinkbridge.record.KeyHash;
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

  private BridgeRecord randomRecord() {
    Headers headers =
        random.nextBoolean() ? Headers.EMPTY : Headers.of("h" + random.nextInt(10), "v", "ü", "");
    BridgeRecord record =
        new BridgeRecord(bytes(300), headers, number(), null, 0, random.nextInt(3), 0);
    return random.nextBoolean() ? record : record.withKey(bytes(40));
  }

  private static Record expected(BridgeRecord record, int maxParallelism) {
    Record.Builder builder =
        Record.newBuilder()
            .setPayload(ByteString.copyFrom(record.payload))
            .putAllHeaders(record.headers.toMap())
            .setTimestamp(record.timestamp)
            .setInput(record.input);
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
    ResultsReader reader = new ResultsReader();
    Answer answer = new Answer();
    for (int round = 1; round <= 100; round++) {
      Results.Builder results = Results.newBuilder().setMore(random.nextBoolean());
      for (int i = random.nextInt(10); i > 0; i--) {
        Record.Builder record =
            Record.newBuilder()
                .setPayload(ByteString.copyFrom(bytes(300)))
                .setTimestamp(number())
                .setRoute(random.nextInt(4));
        for (int h = random.nextInt(3); h > 0; h--) {
          record.putHeaders("name" + h, "value " + h);
        }
        if (random.nextBoolean()) {
          record.setKey(ByteString.copyFrom(bytes(20))).setKeyHash(random.nextInt());
        }
        results.addRecords(record);
      }
      answer.open(
          FromWorker.newBuilder()
              .setSeq(round)
              .setNextWakeupMs(number())
              .setResults(results)
              .build()
              .toByteArray());
      assertEquals(round, answer.seq());
      reader.over(answer);
      for (Record record : results.getRecordsList()) {
        BridgeRecord read = reader.next();
        assertEquals(record.getPayload(), ByteString.copyFrom(read.payload), "seed " + seed);
        assertEquals(record.getHeadersMap(), read.headers.toMap());
        assertEquals(record.getTimestamp(), read.timestamp);
        assertEquals(record.getRoute(), read.route);
        assertEquals(record.hasKey(), read.key != null);
        assertEquals(record.getKeyHash(), read.keyHash);
      }
      assertNull(reader.next());
      assertEquals(results.getMore(), reader.hasMore());
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
    int refused = 0;
    for (int round = 0; round < 20_000; round++) {
      byte[] bad = Arrays.copyOf(good, random.nextInt(good.length) + 1);
      for (int i = random.nextInt(3); i >= 0; i--) {
        bad[random.nextInt(bad.length)] = (byte) random.nextInt();
      }
      try {
        Answer answer = new Answer().open(bad);
        if (answer.kind() == Answer.Kind.RESULTS) {
          ResultsReader reader = new ResultsReader();
          reader.over(answer);
          BridgeRecord record = reader.next();
          while (record != null) {
            record = reader.next();
          }
        }
      } catch (ProtocolException e) {
        refused++;
      }
    }
    assertTrue(refused > 1000);
    assertThrows(ProtocolException.class, () -> new Answer().open(new byte[0]));
  }
}
