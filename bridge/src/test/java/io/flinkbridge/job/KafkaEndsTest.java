package io.flinkbridge.job;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.descriptor.Sink;
import io.flinkbridge.descriptor.Source;
import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.Headers;
import io.flinkbridge.testing.Sidecar;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.OffsetResetStrategy;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * What Kafka's clients are told, how records are mapped, and what is refused; real brokers are
 * elsewhere.
 */
class KafkaEndsTest {
  private static final String PIPELINE =
      """
      name: shop
      sources:
        plain: { kind: kafka, bootstrap_servers: ["a:1", "b:2"], stream_name: events }
        tuned:
          kind: kafka
          bootstrap_servers: a:1
          topics: [x, y]
          group: mine
          offsets: given
          offsets_given: { "x:0": 7 }
          timestamp: .ts
          properties: { isolation.level: read_uncommitted, client.rack: r1 }
        latest: { kind: kafka, bootstrap_servers: a:1, topic_pattern: "z.*", offsets: latest, until: latest }
        strict: { kind: kafka, bootstrap_servers: a:1, stream_name: events, offsets_fallback: fail }
      steps:
        - { name: mix, kind: passthrough, from: [plain, tuned, latest, strict] }
      sinks:
        out: { kind: kafka, bootstrap_servers: a:1, stream_name: out, from: mix }
        less: { kind: kafka, bootstrap_servers: a:1, stream_name: out, delivery: at_least_once, from: mix }
        named:
          kind: kafka
          bootstrap_servers: a:1
          stream_name: out
          transactional_id_prefix: own
          properties: { transaction.timeout.ms: 60000, linger.ms: 5 }
          from: mix
      """;

  @TempDir static Path folder;
  private static Descriptor descriptor;

  @BeforeAll
  static void compile() throws Exception {
    descriptor = Descriptor.read(Sidecar.compile(folder, PIPELINE));
  }

  private static Source source(String name) {
    return descriptor.sources().stream()
        .filter(source -> source.name().equals(name))
        .findFirst()
        .orElseThrow();
  }

  private static Sink sink(String name) {
    return descriptor.sinks().stream()
        .filter(sink -> sink.name().equals(name))
        .findFirst()
        .orElseThrow();
  }

  private static FlinkSettings settings(String... lines) throws Exception {
    return FlinkSettings.parse(
        "settings", "flink: { " + String.join(", ", lines) + " }", name -> null);
  }

  private static Properties consumer(String name, String delivery) throws Exception {
    return KafkaEnds.consumerProperties(
        source(name), descriptor, settings("delivery: " + delivery));
  }

  @Test
  void consumersFollowTheDelivery() throws Exception {
    Properties exactly = consumer("plain", "exactly_once");
    assertEquals("a:1,b:2", exactly.get("bootstrap.servers"));
    assertEquals("shop", exactly.get("group.id"));
    assertEquals("read_committed", exactly.get("isolation.level"));
    assertNull(exactly.get("enable.auto.commit"));
    assertNull(consumer("plain", "at_least_once").get("isolation.level"));
    assertEquals("true", consumer("plain", "at_most_once").get("enable.auto.commit"));
  }

  @Test
  void whatThePipelineSaysComesLast() throws Exception {
    Properties tuned = consumer("tuned", "exactly_once");
    assertEquals("mine", tuned.get("group.id"));
    assertEquals("read_uncommitted", tuned.get("isolation.level"));
    assertEquals("r1", tuned.get("client.rack"));
  }

  @Test
  void offsetsBeginWhereItIsSaid() {
    OffsetsInitializer plain = KafkaEnds.offsets(source("plain").options());
    assertEquals(OffsetResetStrategy.EARLIEST, plain.getAutoOffsetResetStrategy());
    assertEquals(
        OffsetResetStrategy.NONE,
        KafkaEnds.offsets(source("strict").options()).getAutoOffsetResetStrategy());
    assertEquals(
        OffsetResetStrategy.LATEST,
        KafkaEnds.offsets(source("latest").options()).getAutoOffsetResetStrategy());
    assertEquals(
        KafkaEnds.offsets(source("tuned").options()).getClass(),
        OffsetsInitializer.offsets(java.util.Map.of()).getClass());
    assertEquals(List.of("x", "y"), KafkaEnds.topics(source("tuned").options()));
    assertFalse(Sources.isUnbounded(source("latest")));
    assertTrue(Sources.isUnbounded(source("plain")));
  }

  @Test
  void sourcesAndSinksCanBeMade() throws Exception {
    for (Source source : descriptor.sources()) {
      KafkaEnds.source(source, null, descriptor, settings("delivery: exactly_once"));
    }
    for (Sink sink : descriptor.sinks()) {
      KafkaEnds.sink(sink, descriptor, settings("delivery: exactly_once"));
    }
  }

  @Test
  void transactionsHaveStableNamesAndTimeouts() throws Exception {
    FlinkSettings settings =
        settings("delivery: exactly_once", "transaction_timeout: 14min", "checkpoint_timeout: 20s");
    assertEquals("shop.out", KafkaEnds.transactionalIdPrefix(sink("out"), descriptor));
    assertEquals("own", KafkaEnds.transactionalIdPrefix(sink("named"), descriptor));
    assertEquals(
        "840000",
        KafkaEnds.producerProperties(sink("out"), settings).get("transaction.timeout.ms"));
    assertEquals(
        "60000",
        KafkaEnds.producerProperties(sink("named"), settings).get("transaction.timeout.ms"));
    assertNull(KafkaEnds.producerProperties(sink("less"), settings).get("transaction.timeout.ms"));
    assertEquals(List.of(), JobChecks.problems(descriptor, settings));
  }

  @Test
  void transactionsThatEndTooSoonAreRefused() throws Exception {
    List<String> problems =
        JobChecks.problems(
            descriptor, settings("checkpoint_interval: 1min", "checkpoint_timeout: 5min"));
    assertEquals(1, problems.size(), problems.toString());
    assertTrue(
        problems.get(0).startsWith("sink \"named\": a transaction is open"), problems.get(0));
    for (String more : List.of("tolerable_failures: 1", "checkpoint_pause: 5min")) {
      problems = JobChecks.problems(descriptor, settings(more));
      assertEquals(2, problems.size(), problems.toString());
      assertTrue(problems.toString().contains("up to 900 s"), problems.toString());
    }
  }

  @Test
  void aSinkCannotHaveMoreThanTheJob() throws Exception {
    List<String> problems = JobChecks.problems(descriptor, settings("delivery: at_most_once"));
    assertTrue(
        problems
            .toString()
            .contains("sink \"less\": it cannot be at_least_once in a job that is at_most_once"),
        problems.toString());
  }

  @Test
  void aPatternHasToBeOne(@TempDir Path other) throws Exception {
    Descriptor broken =
        Descriptor.read(
            Sidecar.compile(
                other, PIPELINE.replace("topic_pattern: \"z.*\"", "topic_pattern: \"z(\"")));
    String problems = JobChecks.problems(broken, settings("checkpoint_timeout: 30s")).toString();
    assertTrue(
        problems.contains("source \"latest\": \"topic_pattern\" is no regular expression"),
        problems);
  }

  @Test
  void kafkasRecordsBecomeOurs() throws Exception {
    ConsumerRecord<byte[], byte[]> from =
        new ConsumerRecord<>("t", 0, 0, bytes("k"), bytes("{\"ts\": 5}"));
    from.headers().add("h", bytes("v")).add("none", null);
    BridgeRecord record = read(new KafkaEnds.Reader(null), from);
    assertEquals("{\"ts\": 5}", record.text());
    assertArrayEquals(bytes("k"), record.key);
    assertEquals("v", record.headers.get("h"));
    assertEquals("", record.headers.get("none"));
    assertEquals(ConsumerRecord.NO_TIMESTAMP, record.timestamp);
    assertEquals(5, read(new KafkaEnds.Reader(new EventTime("s", ".ts")), from).timestamp);
    BridgeRecord empty =
        read(new KafkaEnds.Reader(null), new ConsumerRecord<>("t", 0, 0, null, null));
    assertEquals(0, empty.payload.length);
    assertNull(empty.key);
  }

  @Test
  void oursBecomeKafkas() {
    BridgeRecord record =
        BridgeRecord.of("p")
            .withTimestamp(42)
            .withKey(bytes("k"))
            .withHeaders(Headers.of("h", "v"));
    ProducerRecord<byte[], byte[]> to = new KafkaEnds.Writer("topic").serialize(record, null, null);
    assertEquals("topic", to.topic());
    assertEquals(42, to.timestamp());
    assertArrayEquals(bytes("k"), to.key());
    assertArrayEquals(bytes("p"), to.value());
    assertArrayEquals(bytes("v"), to.headers().lastHeader("h").value());
    assertNull(
        new KafkaEnds.Writer("topic").serialize(BridgeRecord.of("p"), null, null).timestamp());
  }

  @Test
  void aRecordWithoutATimestampIsSaidInWords() {
    ConsumerRecord<byte[], byte[]> from = new ConsumerRecord<>("t", 0, 0, null, bytes("poison"));
    Exception refused =
        assertThrows(
            java.io.IOException.class,
            () -> read(new KafkaEnds.Reader(new EventTime("in", ".ts")), from));
    assertTrue(refused.getMessage().contains("source \"in\": no timestamp"), refused.getMessage());
    assertTrue(refused.getMessage().contains("record: poison"), refused.getMessage());
  }

  private static BridgeRecord read(KafkaEnds.Reader reader, ConsumerRecord<byte[], byte[]> from)
      throws Exception {
    List<BridgeRecord> out = new ArrayList<>();
    reader.deserialize(
        from,
        new Collector<>() {
          @Override
          public void collect(BridgeRecord record) {
            out.add(record);
          }

          @Override
          public void close() {}
        });
    return out.get(0);
  }

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }
}
