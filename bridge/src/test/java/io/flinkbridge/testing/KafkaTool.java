package io.flinkbridge.testing;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * What {@code make flink-up} and {@code make flink-run} do with Kafka: topics, lines of a file into
 * one, what has been committed in another.
 */
public final class KafkaTool {
  private static final String USAGE =
      """
      KafkaTool BROKER create PARTITIONS TOPIC...    creates those that there are not, once the broker answers
      KafkaTool BROKER send TOPIC FILE               a record per line
      KafkaTool BROKER read TOPIC LINES SECONDS      prints the first LINES, and how many there are once none has come for SECONDS""";

  private static final long PATIENCE_S = 60;

  private KafkaTool() {}

  /** Does one command. */
  public static void main(String[] arguments) throws Exception {
    if (arguments.length < 2) {
      throw new IllegalArgumentException(USAGE);
    }
    String broker = arguments[0];
    List<String> rest = Arrays.asList(arguments).subList(2, arguments.length);
    switch (arguments[1]) {
      case "create" -> create(broker, Integer.parseInt(rest.get(0)), rest.subList(1, rest.size()));
      case "send" -> send(broker, rest.get(0), Path.of(rest.get(1)));
      case "read" ->
          read(
              broker,
              rest.get(0),
              Integer.parseInt(rest.get(1)),
              Duration.ofSeconds(Long.parseLong(rest.get(2))));
      default -> throw new IllegalArgumentException(USAGE);
    }
  }

  private static void create(String broker, int partitions, List<String> topics) throws Exception {
    KafkaBroker.waitUntilServing(broker, null); // it listens long before it answers
    try (Admin admin = KafkaBroker.admin(broker)) {
      Set<String> there = admin.listTopics().names().get(PATIENCE_S, TimeUnit.SECONDS);
      List<NewTopic> missing =
          topics.stream()
              .distinct()
              .filter(topic -> !there.contains(topic))
              .map(topic -> new NewTopic(topic, partitions, (short) 1))
              .toList();
      admin.createTopics(missing).all().get(PATIENCE_S, TimeUnit.SECONDS);
    }
  }

  private static void send(String broker, String topic, Path file) throws Exception {
    Map<String, Object> settings = Map.of(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, broker);
    List<String> lines = Files.readAllLines(file);
    try (KafkaProducer<String, String> producer =
        new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
      for (String line : lines.subList(0, lines.size() - 1)) {
        producer.send(new ProducerRecord<>(topic, line));
      }
      producer.flush();
      producer.send(new ProducerRecord<>(topic, lines.get(lines.size() - 1))).get();
    }
    System.out.println(lines.size() + " records into the topic " + topic);
  }

  private static void read(String broker, String topic, int lines, Duration quiet) {
    Map<String, Object> settings =
        Map.of(
            ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG,
            broker,
            ConsumerConfig.ISOLATION_LEVEL_CONFIG,
            "read_committed");
    int count = 0;
    try (KafkaConsumer<String, String> consumer =
        new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
      List<TopicPartition> partitions =
          consumer.partitionsFor(topic).stream()
              .map(info -> new TopicPartition(topic, info.partition()))
              .toList();
      consumer.assign(partitions);
      consumer.seekToBeginning(partitions);
      long last = System.nanoTime();
      while (System.nanoTime() - last < quiet.toNanos()) {
        for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
          last = System.nanoTime();
          if (count++ < lines) {
            System.out.println(record.value());
          }
        }
      }
    }
    System.out.println(count + " committed records in the topic " + topic);
  }
}
