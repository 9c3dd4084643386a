package io.flinkbridge.testing;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.nio.file.Path;
import java.util.List;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The broker of the tests keeps what it has taken, through a kill. */
class KafkaBrokerTest {
  @Test
  void keepsRecordsThroughAKill(@TempDir Path directory) throws Exception {
    try (KafkaBroker broker = new KafkaBroker(directory);
        Topic topic = new Topic(broker, "letters", 2)) {
      topic.send(List.of("a", "b", "c"), value -> value.charAt(0));
      broker.kill();
      broker.start();
      topic.send(List.of("d"), value -> value.charAt(0));
      List<String> values = topic.await(4).stream().map(ConsumerRecord::value).sorted().toList();
      assertEquals(List.of("a", "b", "c", "d"), values);
      assertEquals(4, topic.drain().size());
    }
  }
}
