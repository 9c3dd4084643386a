package io.flinkbridge.testing;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.ToIntFunction;
import java.util.function.ToLongFunction;
import java.util.stream.IntStream;
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
 * A topic of a test: sends to it, and reads what has been committed in it, from its beginning on.
 *
 * <p>One thread may send while another reads.
 */
public final class Topic implements AutoCloseable {
  /** How long what must come may take, ever; no measure of anything. */
  private static final Duration PATIENCE = Duration.ofSeconds(120);

  private final String name;
  private final String bootstrap;
  private final int partitions;
  private final KafkaConsumer<String, String> consumer;
  private final List<ConsumerRecord<String, String>> records = new ArrayList<>();

  /** Creates the topic. */
  public Topic(KafkaBroker broker, String name, int partitions) throws InterruptedException {
    this.name = name;
    this.bootstrap = broker.bootstrap();
    this.partitions = partitions;
    broker.createTopic(name, partitions);
    Map<String, Object> settings = new HashMap<>();
    settings.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
    settings.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
    settings.put(ConsumerConfig.RECONNECT_BACKOFF_MAX_MS_CONFIG, 200);
    this.consumer =
        new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
    List<TopicPartition> all = topicPartitions();
    consumer.assign(all);
    consumer.seekToBeginning(all);
  }

  /** Its name. */
  public String name() {
    return name;
  }

  /**
   * Sends values, each to the partition that the function says (modulo their number), and returns
   * when the broker has them all.
   */
  public void send(List<String> values, ToIntFunction<String> partition) {
    send(values, partition, value -> System.currentTimeMillis());
  }

  /** The same with the timestamps that a function says. */
  public void send(
      List<String> values, ToIntFunction<String> partition, ToLongFunction<String> timestamp) {
    Map<String, Object> settings = new HashMap<>();
    settings.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
    settings.put(ProducerConfig.LINGER_MS_CONFIG, 5);
    settings.put(ProducerConfig.RECONNECT_BACKOFF_MAX_MS_CONFIG, 200);
    // A broker that has just come back may refuse a batch and take the one behind it as the first
    // of this producer; it never takes the first one then. So nothing goes out behind a batch.
    settings.put(ProducerConfig.MAX_IN_FLIGHT_REQUESTS_PER_CONNECTION, 1);
    List<Exception> failures = new ArrayList<>();
    try (KafkaProducer<String, String> producer =
        new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
      for (String value : values) {
        int chosen = Math.floorMod(partition.applyAsInt(value), partitions);
        producer.send(
            new ProducerRecord<>(name, chosen, timestamp.applyAsLong(value), null, value),
            (metadata, failure) -> {
              if (failure != null) {
                synchronized (failures) {
                  failures.add(failure);
                }
              }
            });
      }
      producer.flush();
    }
    if (!failures.isEmpty()) {
      throw new IllegalStateException(
          "cannot send to " + name + ": " + failures.size() + " failures", failures.get(0));
    }
  }

  /**
   * Reads until at least so many records are there; all that have come so far. A failure says how
   * many there were instead.
   */
  public List<ConsumerRecord<String, String>> await(int count) {
    long deadline = System.nanoTime() + PATIENCE.toNanos();
    while (records.size() < count) {
      poll();
      if (System.nanoTime() > deadline) {
        throw new AssertionError(
            name + " has " + records.size() + " committed records; expected were " + count);
      }
    }
    return records;
  }

  /**
   * Reads up to where the topic ends now, for readers of committed records; all that have come so
   * far.
   */
  public List<ConsumerRecord<String, String>> drain() {
    Map<TopicPartition, Long> ends = consumer.endOffsets(topicPartitions());
    long deadline = System.nanoTime() + PATIENCE.toNanos();
    while (ends.entrySet().stream()
        .anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
      poll();
      if (System.nanoTime() > deadline) {
        throw new AssertionError(
            name + " could not be read to its end " + ends + " within " + PATIENCE);
      }
    }
    return records;
  }

  /** How many records have come; what is there right now is read first. */
  public int count() {
    poll();
    return records.size();
  }

  /** Where its partitions end, for readers of everything and for readers of what is committed. */
  public String ends() {
    Map<String, Object> settings =
        Map.of(
            ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG,
            bootstrap,
            ConsumerConfig.ISOLATION_LEVEL_CONFIG,
            "read_uncommitted");
    try (KafkaConsumer<String, String> everything =
        new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
      return name
          + ": "
          + everything.endOffsets(topicPartitions())
          + ", committed "
          + consumer.endOffsets(topicPartitions())
          + ", read "
          + records.size();
    }
  }

  private void poll() {
    consumer.poll(Duration.ofMillis(100)).forEach(records::add);
  }

  /** The text of a header, or null. */
  public static String header(ConsumerRecord<String, String> record, String name) {
    var header = record.headers().lastHeader(name);
    return header == null ? null : new String(header.value(), StandardCharsets.UTF_8);
  }

  private List<TopicPartition> topicPartitions() {
    return IntStream.range(0, partitions)
        .mapToObj(number -> new TopicPartition(name, number))
        .toList();
  }

  @Override
  public void close() {
    consumer.close();
  }
}
