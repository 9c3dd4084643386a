package io.flinkbridge.job;

import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.descriptor.FlinkSettings.Delivery;
import io.flinkbridge.descriptor.Sink;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.config.ConfigResource;

/**
 * What only a broker can say: whether it lets transactions be open for as long as an exactly-once
 * sink needs. A broker that cannot be asked from here is no error, as the job may well reach it:
 * that is a warning.
 */
public final class BrokerChecks {
  private static final Duration PATIENCE = Duration.ofSeconds(5);
  private static final String LONGEST = "transaction.max.timeout.ms";

  private final List<String> problems = new ArrayList<>();
  private final List<String> warnings = new ArrayList<>();

  private BrokerChecks() {}

  /** Asks the brokers of all sinks that have transactions. */
  public static BrokerChecks of(Descriptor descriptor, FlinkSettings settings) {
    BrokerChecks checks = new BrokerChecks();
    for (Sink sink : descriptor.sinks()) {
      if (sink.kind().equals("kafka")
          && KafkaEnds.delivery(sink, settings) == Delivery.EXACTLY_ONCE) {
        checks.ask(sink, settings);
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

  private void ask(Sink sink, FlinkSettings settings) {
    Properties producer = KafkaEnds.producerProperties(sink, settings);
    long wanted = Long.parseLong(producer.getProperty(ProducerConfig.TRANSACTION_TIMEOUT_CONFIG));
    try (Admin admin = Admin.create(admin(sink))) {
      Collection<Node> nodes =
          admin.describeCluster().nodes().get(PATIENCE.toMillis(), TimeUnit.MILLISECONDS);
      ConfigResource broker =
          new ConfigResource(ConfigResource.Type.BROKER, nodes.iterator().next().idString());
      Config config =
          admin
              .describeConfigs(List.of(broker))
              .all()
              .get(PATIENCE.toMillis(), TimeUnit.MILLISECONDS)
              .get(broker);
      long longest = Long.parseLong(config.get(LONGEST).value());
      if (wanted > longest) {
        problems.add(tooLong(sink, wanted, longest));
      }
    } catch (ExecutionException | TimeoutException | RuntimeException e) {
      warnings.add(
          "sink \""
              + sink.name()
              + "\": "
              + String.join(", ", sink.options().list("bootstrap_servers"))
              + " cannot be asked for "
              + LONGEST
              + ": "
              + (e.getCause() == null ? e : e.getCause()));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  static String tooLong(Sink sink, long wanted, long longest) {
    return "sink \""
        + sink.name()
        + "\": transactions are to stay open for "
        + wanted
        + " ms (transaction_timeout), but the broker allows "
        + longest
        + " ms; lower transaction_timeout in section flink, or raise "
        + LONGEST
        + " of the broker";
  }

  private static Properties admin(Sink sink) {
    Properties properties = new Properties();
    sink.options()
        .map("properties")
        .forEach(
            (name, value) -> {
              if (AdminClientConfig.configNames().contains(name)) {
                properties.put(name, value);
              }
            });
    properties.put(
        AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG,
        String.join(",", sink.options().list("bootstrap_servers")));
    properties.put(
        AdminClientConfig.DEFAULT_API_TIMEOUT_MS_CONFIG, Long.toString(PATIENCE.toMillis()));
    properties.put(AdminClientConfig.REQUEST_TIMEOUT_MS_CONFIG, Long.toString(PATIENCE.toMillis()));
    return properties;
  }
}
