package io.flinkbridge.bench;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.common.RuntimeExecutionMode;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.CoreOptions;
import org.apache.flink.configuration.ExecutionOptions;
import org.apache.flink.configuration.MemorySize;
import org.apache.flink.configuration.PipelineOptions;
import org.apache.flink.configuration.RestartStrategyOptions;
import org.apache.flink.configuration.TaskManagerOptions;
import org.apache.flink.connector.base.source.reader.SourceReaderOptions;
import org.apache.flink.connector.datagen.source.DataGeneratorSource;
import org.apache.flink.connector.file.src.FileSource;
import org.apache.flink.connector.file.src.reader.TextLineInputFormat;
import org.apache.flink.core.fs.Path;
import org.apache.flink.runtime.minicluster.MiniCluster;
import org.apache.flink.runtime.minicluster.MiniClusterConfiguration;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/**
 * Runs jobs of one engine, one after the other in one cluster in this JVM, so that all but the
 * first meet compiled code. (A cluster for each job would load Flink's RPC anew each time, and have
 * it compiled while the job is measured.) A line of JSON on standard input is a job:
 *
 * <pre>
 * {"logic": "stateless", "parallelism": 1, "files": [...], "checkpoint_ms": 0, "marks": "/path/of/marks"}
 * </pre>
 *
 * and a line comes back once it has run: {@code DONE}, or {@code FAILED} and why. What was measured
 * stands in the files that {@link MarkSink} wrote. With {@code "rate"} and {@code "records"} the
 * lines of the first file come from a paced generator instead, with the time of their birth as
 * timestamp.
 */
public final class Bench {
  private static final ObjectMapper JSON = new ObjectMapper();

  /** The highest parallelism of a job; the sidecar has as many slots. */
  private static final int SLOTS = 2;

  private Bench() {}

  /** What is compared: the logic of a job, between its lines and its sink. */
  interface Engine {
    void build(DataStream<String> lines, JsonNode job);
  }

  /**
   * The first argument names the engine; the bridge wants a descriptor and the address of its
   * sidecar.
   */
  public static void main(String[] args) throws Exception {
    Engine engine =
        switch (args[0]) {
          case "native" -> new Native();
          case "bridge" -> new Bridge(args[1], args[2]);
          default -> throw new IllegalArgumentException("no such engine: " + args[0]);
        };
    BufferedReader in =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    MiniCluster cluster = cluster();
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      System.out.println(run(cluster, engine, JSON.readTree(line)));
    }
    System.exit(0); // whatever threads a job has left behind
  }

  private static MiniCluster cluster() throws Exception {
    Configuration config = new Configuration();
    config.set(TaskManagerOptions.NETWORK_MEMORY_MIN, MemorySize.ofMebiBytes(64));
    config.set(TaskManagerOptions.NETWORK_MEMORY_MAX, MemorySize.ofMebiBytes(64));
    config.set(TaskManagerOptions.MANAGED_MEMORY_SIZE, MemorySize.ofMebiBytes(64));
    // Readers look for it here, not in the job. Else a finished source waits for its fetchers, for
    // half a minute at times.
    config.set(SourceReaderOptions.SOURCE_READER_CLOSE_TIMEOUT, 200L);
    MiniCluster cluster =
        new MiniCluster(
            new MiniClusterConfiguration.Builder()
                .setConfiguration(config)
                .setNumSlotsPerTaskManager(SLOTS)
                .withRandomPorts()
                .build());
    cluster.start();
    return cluster;
  }

  private static String run(MiniCluster cluster, Engine engine, JsonNode job) {
    try {
      StreamExecutionEnvironment env = environment(job);
      engine.build(lines(env, job), job);
      cluster.executeJobBlocking(env.getStreamGraph().getJobGraph());
      return "DONE";
    } catch (Exception e) {
      e.printStackTrace();
      return "FAILED " + rootOf(e);
    }
  }

  private static Throwable rootOf(Throwable thrown) {
    return thrown.getCause() == null ? thrown : rootOf(thrown.getCause());
  }

  private static StreamExecutionEnvironment environment(JsonNode job) {
    Configuration config = new Configuration();
    config.set(CoreOptions.DEFAULT_PARALLELISM, job.get("parallelism").asInt());
    config.set(ExecutionOptions.RUNTIME_MODE, RuntimeExecutionMode.STREAMING);
    config.set(PipelineOptions.OBJECT_REUSE, true);
    config.set(RestartStrategyOptions.RESTART_STRATEGY, "none");
    int checkpoint = job.path("checkpoint_ms").asInt();
    if (checkpoint > 0) {
      config.set(CheckpointingOptions.CHECKPOINTING_INTERVAL, Duration.ofMillis(checkpoint));
    }
    return new StreamExecutionEnvironment(config);
  }

  private static DataStream<String> lines(StreamExecutionEnvironment env, JsonNode job) {
    if (job.has("rate")) {
      return paced(env, job);
    }
    List<Path> files = new ArrayList<>();
    job.get("files").forEach(file -> files.add(new Path(file.asText())));
    return env.fromSource(
        FileSource.forRecordStreamFormat(new TextLineInputFormat(), files.toArray(new Path[0]))
            .build(),
        WatermarkStrategy.noWatermarks(),
        "lines");
  }

  private static DataStream<String> paced(StreamExecutionEnvironment env, JsonNode job) {
    return env.fromSource(
        new DataGeneratorSource<>(
            new Lines(job.get("files").get(0).asText()),
            job.get("records").asLong(),
            new Pace(job.get("rate").asDouble()),
            Types.STRING),
        WatermarkStrategy.<String>noWatermarks()
            .withTimestampAssigner((line, time) -> System.nanoTime()),
        "lines");
  }
}
