package io.flinkbridge.job;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.testing.Parts;
import io.flinkbridge.testing.Sidecar;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.IntStream;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.runtime.testutils.MiniClusterResourceConfiguration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.test.junit5.MiniClusterExtension;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.api.io.TempDir;

/** Whole pipelines on a MiniCluster with a real sidecar, from files and generators into files. */
@Timeout(300)
class FileJobTest {
  private static final int SLOTS = 2;

  @RegisterExtension
  static final MiniClusterExtension CLUSTER =
      new MiniClusterExtension(
          new MiniClusterResourceConfiguration.Builder()
              .setNumberTaskManagers(1)
              .setNumberSlotsPerTaskManager(SLOTS)
              .setConfiguration(quick())
              .build());

  @TempDir Path folder;

  /** Flink's fetchers sometimes hold a finished job up for half a minute. */
  private static Configuration quick() {
    Configuration configuration = new Configuration();
    configuration.setString("source.reader.close.timeout", "1000");
    return configuration;
  }

  private static FlinkSettings settings(Sidecar sidecar, String... lines) throws Exception {
    String text =
        "flink:\n  checkpoint_interval: 100ms\n  restart: fixed_delay\n  restart_delay: 100ms\n  restart_attempts: 3\n  sidecar: "
            + sidecar.address()
            + "\n";
    for (String line : lines) {
      text += "  " + line + "\n";
    }
    return FlinkSettings.parse("settings", text, name -> null);
  }

  private static JobClient start(Sidecar sidecar, FlinkSettings settings) throws Exception {
    StreamExecutionEnvironment environment = StreamExecutionEnvironment.getExecutionEnvironment();
    JobBuilder.build(environment, Descriptor.read(sidecar.descriptorPath()), settings);
    return environment.executeAsync();
  }

  private static void run(Sidecar sidecar, String... lines) throws Exception {
    start(sidecar, settings(sidecar, lines)).getJobExecutionResult().get();
  }

  private List<String> write(String name, int first, int end) throws IOException {
    List<String> lines =
        IntStream.range(first, end)
            .mapToObj(n -> "{\"n\":" + n + ",\"user\":\"u" + n % 7 + "\"}")
            .toList();
    Files.createDirectories(folder.resolve(name).getParent());
    Files.write(folder.resolve(name), lines);
    return lines;
  }

  @Test
  void filesGoThroughSegmentsIntoFiles() throws Exception {
    write("in/a", 0, 500);
    write("in/b", 500, 1000);
    String pipeline =
        """
        name: files
        parallelism: 2
        on_error: dead_letter
        sources:
          in: { kind: file, path: "%1$s/in", timestamp: .n }
        steps:
          - { name: even, kind: filter, program: ".n %% 2 == 0 or .n == 333" }
          - { name: by_user, kind: key_by, key: .user }
          - { name: counts, kind: aggregate, fields: { count: count, sum: sum(.n) } }
          - { name: check, kind: map, program: 'if .count == 3 then error("three") else . end' }
          - { name: split, kind: route, routes: { first: .count == 1, rest: default } }
        sinks:
          first: { kind: file, path: "%1$s/first", from: split.first }
          rest: { kind: file, path: "%1$s/rest", from: split.rest }
          failed: { kind: file, path: "%1$s/failed", from: dead_letter }
        """
            .formatted(folder);
    try (Sidecar sidecar = Sidecar.start(pipeline, SLOTS)) {
      run(sidecar);
    }
    assertEquals(7, Parts.lines(folder.resolve("first")).size());
    assertEquals(7, Parts.lines(folder.resolve("failed")).size());
    TreeMap<String, Integer> counts = new TreeMap<>();
    for (String line : Parts.lines(folder.resolve("rest"))) {
      JsonNode total = JqProgram.JSON.readTree(line);
      counts.merge(total.get("key").asText(), total.get("count").asInt(), Math::max);
    }
    assertEquals(501, counts.values().stream().mapToInt(Integer::intValue).sum());
    assertEquals(501 - 14, Parts.lines(folder.resolve("rest")).size());
  }

  @Test
  void severalInputsAreToldApartAndMixed() throws Exception {
    write("left", 0, 100);
    String pipeline =
        """
        name: union
        sources:
          left: { kind: file, path: "%1$s/left" }
          right: { kind: generator, count: 50, program: '{n: ., user: "g"}' }
        steps:
          - { name: both, kind: map, program: .n, from: [left, right] }
          - { name: again, kind: map, program: ". + 1000", parallelism: 2 }
        sinks:
          out: { kind: file, path: "%1$s/out", from: [both, again] }
        """
            .formatted(folder);
    try (Sidecar sidecar = Sidecar.start(pipeline, SLOTS)) {
      run(sidecar, "state_backend: rocksdb");
    }
    List<Integer> expected = new ArrayList<>();
    for (int high : new int[] {0, 1000}) {
      IntStream.range(0, 100).forEach(n -> expected.add(n + high));
      IntStream.range(0, 50).forEach(n -> expected.add(n + high));
    }
    List<Integer> found = new ArrayList<>();
    Parts.lines(folder.resolve("out")).forEach(line -> found.add(Integer.valueOf(line)));
    assertEquals(expected.stream().sorted().toList(), found.stream().sorted().toList());
  }

  @Test
  void partitionsAreKept() throws Exception {
    String pipeline =
        """
        name: partitions
        parallelism: 2
        sources:
          numbers: { kind: generator, count: 100, program: '{n: ., word: "w\\(. %% 5)"}' }
        steps:
          - { name: all, kind: passthrough, from: numbers, partition: broadcast }
          - { name: sharded, kind: passthrough, from: numbers, partition_by: .n }
          - { name: words, kind: passthrough, from: numbers, partition_by: .word }
        sinks:
          all: { kind: file, path: "%1$s/all", from: all, parallelism: 2 }
          sharded: { kind: file, path: "%1$s/sharded", from: sharded, parallelism: 2, roll_time: 1h }
          words: { kind: file, path: "%1$s/words", from: words, parallelism: 2, roll_bytes: 1MiB }
        """
            .formatted(folder);
    try (Sidecar sidecar = Sidecar.start(pipeline, SLOTS)) {
      run(sidecar, "delivery: at_least_once");
    }
    assertEquals(200, Parts.lines(folder.resolve("all")).size());
    assertEquals(100, Parts.lines(folder.resolve("sharded")).size());
    assertEquals(100, Parts.lines(folder.resolve("words")).size());
    for (Path part : Parts.finished(folder.resolve("sharded"))) {
      Set<Integer> shards = new HashSet<>();
      for (String line : Files.readAllLines(part)) {
        shards.add(JqProgram.JSON.readTree(line).get("n").asInt() % 2);
      }
      assertEquals(1, shards.size(), "two shards in " + part);
    }
    Map<String, Path> partOf = new HashMap<>();
    for (Path part : Parts.finished(folder.resolve("words"))) {
      for (String line : Files.readAllLines(part)) {
        String word = JqProgram.JSON.readTree(line).get("word").asText();
        assertEquals(part, partOf.getOrDefault(word, part), "two subtasks have " + word);
        partOf.put(word, part);
      }
    }
  }

  /**
   * The front is killed once a checkpoint is there: the job is restored from it, and nothing is
   * lost or doubled.
   */
  @Test
  void afterAFailureEveryRecordCountsOnce() throws Exception {
    int count = 4000;
    String pipeline =
        """
        name: once
        parallelism: 2
        sources:
          numbers: { kind: generator, count: %2$d, rate: 2000, program: '{n: ., user: (. %% 10)}' }
        steps:
          - { name: by_user, kind: key_by, key: .user }
          - { name: counts, kind: aggregate, fields: { count: count, n: max(.n) } }
        sinks:
          out: { kind: file, path: "%1$s/out" }
        """
            .formatted(folder, count);
    try (Sidecar sidecar = Sidecar.start(pipeline, SLOTS)) {
      JobClient job = start(sidecar, settings(sidecar));
      try {
        Sidecar.waitUntil(
            "a finished part", () -> !Parts.finished(folder.resolve("out")).isEmpty());
        sidecar.killFront();
        job.getJobExecutionResult().get();
      } finally {
        job.cancel();
      }
    }
    List<String> expected = new ArrayList<>();
    for (int user = 0; user < 10; user++) {
      for (int n = 1; n <= count / 10; n++) {
        expected.add(user + ":" + n);
      }
    }
    List<String> found = new ArrayList<>();
    for (String line : Parts.lines(folder.resolve("out"))) {
      JsonNode total = JqProgram.JSON.readTree(line);
      found.add(total.get("key").asText() + ":" + total.get("count").asInt());
    }
    assertEquals(expected.stream().sorted().toList(), found.stream().sorted().toList());
    assertTrue(Parts.finished(folder.resolve("out")).size() > 2);
  }
}
