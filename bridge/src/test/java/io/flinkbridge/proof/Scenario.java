package io.flinkbridge.proof;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.testing.Cluster;
import io.flinkbridge.testing.KafkaBroker;
import io.flinkbridge.testing.Sidecar;
import io.flinkbridge.testing.Size;
import io.flinkbridge.testing.Topic;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;

/**
 * One pipeline on a cluster, from topic to topics: JSON is parsed, events are deduplicated and
 * added up by user, with every event ({@code totals}), by event time ({@code hours}) and by the
 * clock ({@code ticks}); what cannot be worked on is a dead letter.
 */
final class Scenario implements AutoCloseable {
  static final int PARTITIONS = 4;
  private static final long PATIENCE_NS = TimeUnit.SECONDS.toNanos(120);
  private static final Pattern SUM =
      Pattern.compile("\\{\"key\":\"([^\"]*)\",\"n\":(\\d+),\"total\":(\\d+)}");

  private final Cluster cluster;
  private final Path folder;
  private final String name;
  private final Workload workload;
  private final Topic in;
  private final Topic totals;
  private final Topic hours;
  private final Topic ticks;
  private final Topic failed;
  private final KafkaBroker broker;
  private final String prelude;
  final Sidecar sidecar;
  private Cluster.Job job;
  private int sent;

  /** Prepares it; {@code prelude}: steps that each event passes first, as YAML. */
  Scenario(
      KafkaBroker broker,
      Cluster cluster,
      Path folder,
      String name,
      Workload workload,
      String prelude)
      throws Exception {
    this.cluster = cluster;
    this.folder = folder;
    this.name = name;
    this.workload = workload;
    this.broker = broker;
    this.prelude = prelude;
    in = new Topic(broker, name + "-in", PARTITIONS);
    totals = new Topic(broker, name + "-totals", PARTITIONS);
    hours = new Topic(broker, name + "-hours", PARTITIONS);
    ticks = new Topic(broker, name + "-ticks", PARTITIONS);
    failed = new Topic(broker, name + "-failed", PARTITIONS);
    sidecar =
        Sidecar.start(
            pipeline(2, 100),
            4,
            "--state-memory",
            Size.choose(32, 128) + "MiB", // all of it comes to one slot in the end
            "--message-max",
            "256KiB");
  }

  /** The pipeline with a parallelism; {@code hours} are so many seconds long. */
  String pipeline(int parallelism, int seconds) {
    return """
        name: %s
        parallelism: %d
        max_parallelism: 16
        on_error: dead_letter
        sources:
          in: { kind: kafka, bootstrap_servers: ["%s"], stream_name: %s, offsets: earliest, out_of_orderness: 1s }
        steps:
          - { name: parse, kind: parse_json }
        %s
          - { name: by_user, kind: key_by, key: .user }
          - { name: once, kind: dedup, key: .id }
          - { name: totals, kind: aggregate, fields: { n: count, total: sum(.value) } }
          - { name: once_h, from: by_user, kind: dedup, key: .id }
          - { name: hours, kind: aggregate, fields: { n: count, total: sum(.value) }, emit: event_time, every: %ds }
          - { name: once_t, from: by_user, kind: dedup, key: .id }
          - { name: ticks, kind: aggregate, fields: { n: count, total: sum(.value) }, emit: processing_time, every: 500ms }
        sinks:
          totals: { from: totals, %s }
          hours: { from: hours, %s }
          ticks: { from: ticks, %s }
          failed: { from: dead_letter, %s }
        """
        .formatted(
            name,
            parallelism,
            broker.bootstrap(),
            in.name(),
            prelude.indent(2).stripTrailing(),
            seconds,
            sink(totals),
            sink(hours),
            sink(ticks),
            sink(failed));
  }

  private String sink(Topic topic) {
    return "kind: kafka, bootstrap_servers: [\"%s\"], stream_name: %s, delivery: exactly_once"
        .formatted(broker.bootstrap(), topic.name());
  }

  private FlinkSettings settings() throws Exception {
    String text =
        """
        flink:
          checkpoint_interval: 300ms
          checkpoint_timeout: 1min
          checkpoint_storage: "%s"
          restart: fixed_delay
          restart_attempts: 1000
          restart_delay: 100ms
          sidecar: "%s"
          sidecar_wait: 30s
        """
            .formatted(folder.resolve("checkpoints").toUri(), sidecar.address());
    return FlinkSettings.parse("config.yaml", text, System::getenv);
  }

  /** Starts the job. */
  void start() throws Exception {
    job = cluster.submit(Descriptor.read(sidecar.descriptorPath()), settings(), null);
  }

  /** Stops it with a savepoint, and starts it from there with another parallelism. */
  void rescale(int parallelism) throws Exception {
    String savepoint = job.stop(folder.resolve("savepoints"));
    Path other = Files.createDirectories(folder.resolve("p" + parallelism));
    job =
        cluster.submit(
            Descriptor.read(Sidecar.compile(other, pipeline(parallelism, 100))),
            settings(),
            savepoint);
  }

  Cluster.Job job() {
    return job;
  }

  /**
   * Sends the input up to a part of it (of 1), and returns once some of what was sent now has been
   * committed.
   */
  void send(double until) {
    int to = (int) (workload.lines().size() * until);
    in.send(workload.lines().subList(sent, to), Workload::partition, Workload::timestamp);
    int before = totals.count();
    sent = to;
    totals.await(before + 1);
  }

  /** The same without waiting for anything. */
  void sendOnly(double until) {
    int to = (int) (workload.lines().size() * until);
    in.send(workload.lines().subList(sent, to), Workload::partition, Workload::timestamp);
    sent = to;
  }

  /** Waits until a part of the output (of 1) has been committed. */
  void awaitCommitted(double part) {
    totals.await((int) (workload.distinct() * part));
  }

  /** Whether there is input that has not come out, as far as has been committed. */
  boolean isBehind() {
    return totals.count() < workload.distinct();
  }

  /** How much of the input that was sent the source had not read at the last checkpoint. */
  long unread() throws Exception {
    try (Admin admin = broker.admin()) {
      long read =
          admin
              .listConsumerGroupOffsets(name)
              .partitionsToOffsetAndMetadata()
              .get(60, TimeUnit.SECONDS)
              .values()
              .stream()
              .mapToLong(OffsetAndMetadata::offset)
              .sum();
      return sent - read;
    }
  }

  /**
   * Sends what is left, waits until everything has come out, stops the job, and compares all that
   * there is.
   */
  void finish() throws Exception {
    sendOnly(1);
    for (int partition = 0; partition < PARTITIONS; partition++) {
      in.send(List.of(Workload.end(partition)), Workload::partition, Workload::timestamp);
    }
    try {
      totals.await((int) workload.distinct() + PARTITIONS);
      awaitSums("hours", hours);
      awaitSums("ticks", ticks);
      failed.await(workload.poison().size());
    } catch (AssertionError e) {
      throw new AssertionError(e.getMessage() + describe(), e);
    }
    job.stop(folder.resolve("savepoints"));
    compareTotals();
    assertEquals(expectedSums(), sums(hours.drain()), "hours");
    assertEquals(expectedSums(), sums(ticks.drain()), "ticks");
    compareFailed();
  }

  /** What there is to know when something does not come. */
  private String describe() throws Exception {
    var checkpoints = job.checkpoints();
    return "\nCheckpoints: %d complete, %d failed, %d under way; restarts: %d\n%s\n%s\n%s\nLast failure: %s\nSessions: %s\nThe sidecar's log:\n%s"
        .formatted(
            checkpoints.getNumberOfCompletedCheckpoints(),
            checkpoints.getNumberOfFailedCheckpoints(),
            checkpoints.getNumberOfInProgressCheckpoints(),
            job.restarts(),
            totals.ends(),
            hours.ends() + ", events " + events(hours),
            ticks.ends() + ", events " + events(ticks),
            job.failure(),
            sidecar.stats("sessions json"),
            sidecar.log());
  }

  private void compareTotals() {
    Map<String, List<String>> actual = new HashMap<>();
    for (ConsumerRecord<String, String> record : totals.drain()) {
      if (!record.key().startsWith("end")) {
        actual.computeIfAbsent(record.key(), key -> new ArrayList<>()).add(record.value());
      }
    }
    assertEquals(workload.users().keySet(), actual.keySet(), "users");
    workload
        .users()
        .forEach(
            (user, expected) ->
                assertEquals(expected.running, actual.get(user), "totals of " + user));
  }

  private void compareFailed() {
    List<String> actual = new ArrayList<>();
    for (ConsumerRecord<String, String> record : failed.drain()) {
      actual.add(record.value());
      String step = record.value().startsWith("{\"no\"") ? "parse" : "by_user";
      assertEquals(step, Topic.header(record, "bridge-error-step"), record.value());
      assertTrue(Topic.header(record, "bridge-error").length() > 10, record.value());
    }
    assertEquals(
        workload.poison().stream().sorted().toList(),
        actual.stream().sorted().toList(),
        "dead letters");
  }

  private Map<String, List<Long>> expectedSums() {
    Map<String, List<Long>> all = new HashMap<>();
    workload
        .users()
        .forEach((user, expected) -> all.put(user, List.of(expected.count, expected.sum)));
    return all;
  }

  /** What the emissions of a timer add up to for each user: how many, and their sum. */
  private static Map<String, List<Long>> sums(List<ConsumerRecord<String, String>> records) {
    Map<String, List<Long>> all = new HashMap<>();
    for (ConsumerRecord<String, String> record : records) {
      Matcher found = SUM.matcher(record.value());
      assertTrue(found.matches(), record.value());
      if (!found.group(1).startsWith("end")) {
        all.merge(
            found.group(1),
            List.of(Long.parseLong(found.group(2)), Long.parseLong(found.group(3))),
            (a, b) -> List.of(a.get(0) + b.get(0), a.get(1) + b.get(1)));
      }
    }
    return all;
  }

  private static long events(Topic topic) {
    return sums(topic.drain()).values().stream().mapToLong(sum -> sum.get(0)).sum();
  }

  /** Waits until so many events have been emitted by timers as there are. */
  private void awaitSums(String what, Topic topic) {
    long deadline = System.nanoTime() + PATIENCE_NS;
    long count = 0;
    while (count < workload.distinct()) {
      int records = topic.count();
      count = sums(topic.await(records)).values().stream().mapToLong(sum -> sum.get(0)).sum();
      if (System.nanoTime() > deadline) {
        throw new AssertionError(
            what + " have " + count + " events; expected were " + workload.distinct());
      }
    }
  }

  @Override
  public void close() throws Exception {
    if (job != null) {
      job.cancel();
    }
    sidecar.close();
    for (Topic topic : List.of(in, totals, hours, ticks, failed)) {
      topic.close();
    }
  }
}
