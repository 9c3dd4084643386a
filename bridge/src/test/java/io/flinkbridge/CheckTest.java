package io.flinkbridge;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.flinkbridge.testing.KafkaBroker;
import io.flinkbridge.testing.Programs;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What {@code --check} finds out by asking a real broker. */
class CheckTest {
  @TempDir static Path folder;
  private static KafkaBroker broker;

  private final ByteArrayOutputStream out = new ByteArrayOutputStream();
  private final ByteArrayOutputStream err = new ByteArrayOutputStream();

  @BeforeAll
  static void start() throws Exception {
    broker = new KafkaBroker(folder.resolve("kafka"));
    broker.createTopic("in", 1);
    broker.createTopic("out", 1);
  }

  @AfterAll
  static void stop() {
    broker.close();
  }

  /** The exit code of a check of a pipeline from topic to topic. */
  private int check(String bootstrap, String from, String to, String properties, String flink)
      throws Exception {
    String pipeline =
        """
        name: p
        sources: { in: { kind: kafka, bootstrap_servers: "%s", %s } }
        sinks: { out: { kind: kafka, bootstrap_servers: "%s", stream_name: %s, properties: { %s } } }
        """
            .formatted(bootstrap, from, bootstrap, to, properties);
    Path file = Files.writeString(folder.resolve("pipeline.yaml"), pipeline);
    Path config = Files.writeString(folder.resolve("config.yaml"), "flink: { " + flink + " }\n");
    Path descriptor =
        Files.writeString(
            folder.resolve("descriptor.yaml"), Programs.compile(file, null, Map.of()));
    try (PrintStream outs = new PrintStream(out, true, StandardCharsets.UTF_8);
        PrintStream errs = new PrintStream(err, true, StandardCharsets.UTF_8)) {
      return Main.run(outs, errs, "--descriptor=" + descriptor, "--config=" + config, "--check");
    }
  }

  private void assertErr(String words) {
    String said = err.toString(StandardCharsets.UTF_8);
    assertTrue(said.contains(words), said);
  }

  @Test
  void aBrokerThatFitsIsFine() throws Exception {
    assertEquals(
        0,
        check(broker.bootstrap(), "stream_name: in", "out", "linger.ms: 5", "restart: none"),
        err::toString);
    assertEquals("", err.toString(StandardCharsets.UTF_8));
  }

  @Test
  void topicsHaveToBeThere() throws Exception {
    assertEquals(
        1, check(broker.bootstrap(), "topics: [in, inn]", "ouch", "linger.ms: 5", "restart: none"));
    assertErr("source \"in\": " + broker.bootstrap() + " has no topic \"inn\"; create it");
    assertErr(
        "sink \"out\": "
            + broker.bootstrap()
            + " has no topic \"ouch\", and the broker makes none");
    assertTrue(!err.toString(StandardCharsets.UTF_8).contains("topic \"in\""));
  }

  @Test
  void transactionsMustNotBeLongerThanTheBrokerAllows() throws Exception {
    assertEquals(
        1,
        check(
            broker.bootstrap(),
            "topic_pattern: i.*",
            "out",
            "linger.ms: 5",
            "transaction_timeout: 20min"));
    assertErr(
        "sink \"out\": transactions are to stay open for 1200000 ms (transaction_timeout), but the broker allows 900000 ms");
  }

  @Test
  void whoIsNotLetInIsTold() throws Exception {
    String sasl =
        "security.protocol: SASL_PLAINTEXT, sasl.mechanism: PLAIN, sasl.jaas.config: "
            + "'org.apache.kafka.common.security.plain.PlainLoginModule required username=\"u\" password=\"p\";'";
    assertEquals(1, check(broker.bootstrap(), "stream_name: in", "out", sasl, "restart: none"));
    assertErr("sink \"out\": " + broker.bootstrap() + " does not let us in: ");
    assertErr("look at security.protocol, sasl.* and ssl.* in its properties");
  }

  /** The job may reach it from where it runs. */
  @Test
  void aBrokerThatIsNotThereIsAWarning() throws Exception {
    try (Socket held = new Socket()) { // its port is nobody else's, and takes no connections
      held.bind(new InetSocketAddress("127.0.0.1", 0));
      String nobody = "127.0.0.1:" + held.getLocalPort();
      assertEquals(
          0,
          check(nobody, "stream_name: in", "out", "linger.ms: 5", "restart: none"),
          err::toString);
      for (String who : List.of("source \"in\"", "sink \"out\"")) {
        assertErr(
            "warning: " + who + ": " + nobody + " cannot be asked from here: no answer within 5 s");
      }
    }
  }
}
