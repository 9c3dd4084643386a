package io.flinkbridge.job;

import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.descriptor.FlinkSettings.Delivery;
import io.flinkbridge.descriptor.Options;
import io.flinkbridge.descriptor.Sink;
import io.flinkbridge.descriptor.Source;
import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.BridgeRecordTypeInfo;
import io.flinkbridge.record.Headers;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.regex.Pattern;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.KafkaSinkBuilder;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.KafkaSourceBuilder;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.OffsetResetStrategy;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeaders;

/**
 * Kafka as a source and as a sink: payload, key, headers and timestamp of a record are those of
 * Kafka's record.
 */
final class KafkaEnds {
  private KafkaEnds() {}

  /** A source that reads topics. */
  static KafkaSource<BridgeRecord> source(
      Source source, EventTime time, Descriptor descriptor, FlinkSettings settings) {
    Options options = source.options();
    KafkaSourceBuilder<BridgeRecord> builder =
        KafkaSource.<BridgeRecord>builder()
            .setProperties(consumerProperties(source, descriptor, settings))
            .setStartingOffsets(offsets(options))
            .setDeserializer(new Reader(time))
            .setClientIdPrefix(descriptor.pipeline() + "-" + source.name());
    if (options.has("topic_pattern")) {
      builder.setTopicPattern(Pattern.compile(options.needed("topic_pattern")));
    } else {
      builder.setTopics(topics(options));
    }
    if (options.text("until").orElse("never").equals("latest")) {
      builder.setBounded(OffsetsInitializer.latest());
    }
    return builder.build();
  }

  /** The topics that are named. */
  static List<String> topics(Options options) {
    return options.has("topics") ? options.list("topics") : List.of(options.needed("stream_name"));
  }

  /** What the consumer is told. What the pipeline says of it comes last. */
  static Properties consumerProperties(
      Source source, Descriptor descriptor, FlinkSettings settings) {
    Options options = source.options();
    Properties properties = new Properties();
    properties.put(
        ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG,
        String.join(",", options.list("bootstrap_servers")));
    properties.put(
        ConsumerConfig.GROUP_ID_CONFIG, options.text("group").orElse(descriptor.pipeline()));
    if (settings.delivery() == Delivery.EXACTLY_ONCE) {
      properties.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
    }
    if (!settings.hasCheckpoints()) {
      properties.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, "true");
    }
    options.map("properties").forEach(properties::put);
    return properties;
  }

  /** Where to begin without a checkpoint. */
  static OffsetsInitializer offsets(Options options) {
    return switch (options.text("offsets").orElse("committed")) {
      case "earliest" -> OffsetsInitializer.earliest();
      case "latest" -> OffsetsInitializer.latest();
      case "timestamp" -> OffsetsInitializer.timestamp(options.number("offsets_timestamp"));
      case "given" -> OffsetsInitializer.offsets(given(options), OffsetResetStrategy.EARLIEST);
      default ->
          OffsetsInitializer.committedOffsets(
              switch (options.text("offsets_fallback").orElse("earliest")) {
                case "latest" -> OffsetResetStrategy.LATEST;
                case "fail" -> OffsetResetStrategy.NONE;
                default -> OffsetResetStrategy.EARLIEST;
              });
    };
  }

  private static Map<TopicPartition, Long> given(Options options) {
    Map<TopicPartition, Long> offsets = new HashMap<>();
    options
        .map("offsets_given")
        .forEach(
            (name, offset) -> {
              int colon = name.lastIndexOf(':');
              offsets.put(
                  new TopicPartition(
                      name.substring(0, colon), Integer.parseInt(name.substring(colon + 1))),
                  Long.parseLong(offset));
            });
    return offsets;
  }

  /** A sink that writes to a topic. */
  static KafkaSink<BridgeRecord> sink(Sink sink, Descriptor descriptor, FlinkSettings settings) {
    Options options = sink.options();
    Delivery delivery = delivery(sink, settings);
    KafkaSinkBuilder<BridgeRecord> builder =
        KafkaSink.<BridgeRecord>builder()
            .setKafkaProducerConfig(producerProperties(sink, settings))
            .setBootstrapServers(String.join(",", options.list("bootstrap_servers")))
            .setRecordSerializer(new Writer(options.needed("stream_name")))
            .setDeliveryGuarantee(
                switch (delivery) {
                  case EXACTLY_ONCE -> DeliveryGuarantee.EXACTLY_ONCE;
                  case AT_LEAST_ONCE -> DeliveryGuarantee.AT_LEAST_ONCE;
                  case AT_MOST_ONCE -> DeliveryGuarantee.NONE;
                });
    if (delivery == Delivery.EXACTLY_ONCE) {
      builder.setTransactionalIdPrefix(transactionalIdPrefix(sink, descriptor));
    }
    return builder.build();
  }

  /** The guarantee of a sink: its own if it says one, else the job's. */
  static Delivery delivery(Sink sink, FlinkSettings settings) {
    return sink.options().text("delivery").map(Delivery::of).orElse(settings.delivery());
  }

  /** The same over all lives of a job, another for each sink: no name has a dot. */
  static String transactionalIdPrefix(Sink sink, Descriptor descriptor) {
    return sink.options()
        .text("transactional_id_prefix")
        .orElse(descriptor.pipeline() + "." + sink.name());
  }

  /** What the producer is told. What the pipeline says of it comes last. */
  static Properties producerProperties(Sink sink, FlinkSettings settings) {
    Properties properties = new Properties();
    if (delivery(sink, settings) == Delivery.EXACTLY_ONCE) {
      properties.put(
          ProducerConfig.TRANSACTION_TIMEOUT_CONFIG,
          Long.toString(settings.duration("transaction_timeout").toMillis()));
    }
    sink.options().map("properties").forEach(properties::put);
    return properties;
  }

  /**
   * Kafka's record as one of the pipeline. Without a program for it, event time is Kafka's
   * timestamp.
   */
  static final class Reader implements KafkaRecordDeserializationSchema<BridgeRecord> {
    private static final long serialVersionUID = 1;
    private static final byte[] NOTHING = new byte[0];

    private final EventTime time;

    Reader(EventTime time) {
      this.time = time;
    }

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> from, Collector<BridgeRecord> out)
        throws IOException {
      byte[] payload = from.value() == null ? NOTHING : from.value();
      BridgeRecord record =
          BridgeRecord.of(payload, time == null ? from.timestamp() : time.of(payload));
      if (from.key() != null) {
        record = record.withKey(from.key());
      }
      Map<String, String> headers = new LinkedHashMap<>();
      for (Header header : from.headers()) {
        headers.put(
            header.key(),
            header.value() == null ? "" : new String(header.value(), StandardCharsets.UTF_8));
      }
      out.collect(headers.isEmpty() ? record : record.withHeaders(Headers.of(headers)));
    }

    @Override
    public TypeInformation<BridgeRecord> getProducedType() {
      return BridgeRecordTypeInfo.INSTANCE;
    }
  }

  /** A record of the pipeline as Kafka's. */
  static final class Writer implements KafkaRecordSerializationSchema<BridgeRecord> {
    private static final long serialVersionUID = 1;

    private final String topic;

    Writer(String topic) {
      this.topic = topic;
    }

    @Override
    public ProducerRecord<byte[], byte[]> serialize(
        BridgeRecord record, KafkaSinkContext context, Long timestamp) {
      RecordHeaders headers = new RecordHeaders();
      record.headers.forEach(
          (name, value) -> headers.add(name, value.getBytes(StandardCharsets.UTF_8)));
      return new ProducerRecord<>(
          topic,
          null,
          record.timestamp < 0 ? null : record.timestamp,
          record.key,
          record.payload,
          headers);
    }
  }
}
