package io.flinkbridge.job;

import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.descriptor.FlinkSettings.Delivery;
import io.flinkbridge.descriptor.Options;
import io.flinkbridge.descriptor.Sink;
import io.flinkbridge.descriptor.Source;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.AuthenticationException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.jspecify.annotations.Nullable;

/**
 * What only a broker can say: whether it lets us in, has the topics, and lets transactions be open
 * for as long as an exactly-once sink needs. Each source and sink asks as the client that it will
 * be. A broker that cannot be asked from here is no error, as the job may well reach it: that is a
 * warning.
 */
public final class BrokerChecks {
  private static final Duration PATIENCE = Duration.ofSeconds(5);
  private static final String LONGEST = "transaction.max.timeout.ms";
  private static final String CREATES = "auto.create.topics.enable";
  private static final String LOOK =
      "; look at security.protocol, sasl.* and ssl.* in its properties";

  private final List<String> problems = new ArrayList<>();
  private final List<String> warnings = new ArrayList<>();
  private final Map<Properties, String> unheard = new HashMap<>();

  private BrokerChecks() {}

  /** Asks the brokers of all sources and sinks. */
  public static BrokerChecks of(Descriptor descriptor, FlinkSettings settings) {
    BrokerChecks checks = new BrokerChecks();
    for (Source source : descriptor.sources()) {
      if (source.kind().equals("kafka")) {
        String what = "source \"" + source.name() + "\": ";
        checks.ask(what, source.options(), admin -> checks.checkSource(admin, what, source));
      }
    }
    for (Sink sink : descriptor.sinks()) {
      if (sink.kind().equals("kafka")) {
        String what = "sink \"" + sink.name() + "\": ";
        checks.ask(what, sink.options(), admin -> checks.checkSink(admin, what, sink, settings));
      }
    }
    return checks;
  }

  /** What is wrong. */
  public List<String> problems() {
    return problems;
  }

  /** What could not be found out. */
  public List<String> warnings() {
    return warnings;
  }

  // ---- Who is asked ----

  /** What is asked of a cluster. */
  private interface Question {
    void ask(Admin admin) throws ExecutionException, TimeoutException, InterruptedException;
  }

  private void ask(String what, Options options, Question question) {
    Properties client = client(options);
    String reason = unheard.get(client);
    if (reason == null) {
      try (Admin admin = Admin.create(client)) {
        question.ask(admin);
        return;
      } catch (ExecutionException e) {
        reason = reason(e.getCause());
        if (e.getCause() instanceof AuthenticationException) {
          problems.add(what + brokers(options) + " does not let us in: " + reason + LOOK);
          return;
        }
      } catch (TimeoutException | RuntimeException e) {
        reason = reason(e);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        return;
      }
      unheard.put(client, reason);
    }
    warnings.add(what + brokers(options) + " cannot be asked from here: " + reason);
  }

  private static String reason(Throwable e) {
    if (e instanceof TimeoutException
        || e instanceof org.apache.kafka.common.errors.TimeoutException) {
      return "no answer within " + PATIENCE.toSeconds() + " s";
    }
    Throwable last = e.getCause() == null ? e : e.getCause();
    return last.getMessage() == null ? last.toString() : last.getMessage();
  }

  private static String brokers(Options options) {
    return String.join(", ", options.list("bootstrap_servers"));
  }

  /** The client that a source or sink will be, as far as an administrator's goes. */
  private static Properties client(Options options) {
    Properties properties = new Properties();
    options
        .map("properties")
        .forEach(
            (name, value) -> {
              if (AdminClientConfig.configNames().contains(name)) {
                properties.put(name, value);
              }
            });
    properties.put(
        AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG,
        String.join(",", options.list("bootstrap_servers")));
    String patience = Long.toString(PATIENCE.toMillis());
    properties.put(AdminClientConfig.DEFAULT_API_TIMEOUT_MS_CONFIG, patience);
    properties.put(AdminClientConfig.REQUEST_TIMEOUT_MS_CONFIG, patience);
    return properties;
  }

  // ---- What is asked ----

  private void checkSource(Admin admin, String what, Source source)
      throws ExecutionException, TimeoutException, InterruptedException {
    if (source.options().has("topic_pattern")) {
      answer(admin.describeCluster().nodes());
      return;
    }
    for (String missing : missing(admin, KafkaEnds.topics(source.options()))) {
      problems.add(what + absent(source.options(), missing) + "; create it, or name another");
    }
  }

  private void checkSink(Admin admin, String what, Sink sink, FlinkSettings settings)
      throws ExecutionException, TimeoutException, InterruptedException {
    String topic = sink.options().needed("stream_name");
    if (!missing(admin, List.of(topic)).isEmpty() && !"true".equals(setting(admin, CREATES))) {
      problems.add(
          what
              + absent(sink.options(), topic)
              + ", and the broker makes none by itself; create it, or name another");
    }
    if (KafkaEnds.delivery(sink, settings) == Delivery.EXACTLY_ONCE) {
      checkTransactions(
          what, setting(admin, LONGEST), KafkaEnds.producerProperties(sink, settings));
    }
  }

  private static String absent(Options options, String topic) {
    return brokers(options) + " has no topic \"" + topic + "\"";
  }

  private void checkTransactions(String what, @Nullable String longest, Properties producer) {
    if (longest == null) {
      warnings.add(what + "the broker does not tell its " + LONGEST);
      return;
    }
    long wanted = Long.parseLong(producer.getProperty(ProducerConfig.TRANSACTION_TIMEOUT_CONFIG));
    if (wanted > Long.parseLong(longest)) {
      problems.add(
          what
              + "transactions are to stay open for "
              + wanted
              + " ms (transaction_timeout), but the broker allows "
              + longest
              + " ms; lower transaction_timeout in section flink, or raise "
              + LONGEST
              + " of the broker");
    }
  }

  /** Those of the topics that are not there. */
  private static List<String> missing(Admin admin, List<String> topics)
      throws ExecutionException, TimeoutException, InterruptedException {
    List<String> missing = new ArrayList<>();
    Map<String, KafkaFuture<TopicDescription>> found =
        admin.describeTopics(topics).topicNameValues();
    for (String topic : topics) {
      try {
        answer(found.get(topic));
      } catch (ExecutionException e) {
        if (!(e.getCause() instanceof UnknownTopicOrPartitionException)) {
          throw e;
        }
        missing.add(topic);
      }
    }
    return missing;
  }

  /** A setting of one broker, for all of them; null if it does not tell. */
  private static @Nullable String setting(Admin admin, String name)
      throws ExecutionException, TimeoutException, InterruptedException {
    Node node = answer(admin.describeCluster().nodes()).iterator().next();
    ConfigResource resource = new ConfigResource(ConfigResource.Type.BROKER, node.idString());
    ConfigEntry entry =
        answer(admin.describeConfigs(List.of(resource)).values().get(resource)).get(name);
    return entry == null ? null : entry.value();
  }

  private static <T> T answer(KafkaFuture<T> future)
      throws ExecutionException, TimeoutException, InterruptedException {
    return future.get(PATIENCE.toMillis(), TimeUnit.MILLISECONDS);
  }
}
