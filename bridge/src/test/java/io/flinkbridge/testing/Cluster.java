package io.flinkbridge.testing;

import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.job.JobBuilder;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import java.util.stream.StreamSupport;
import org.apache.flink.api.common.JobID;
import org.apache.flink.api.common.JobStatus;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.core.execution.SavepointFormatType;
import org.apache.flink.runtime.checkpoint.CheckpointStatsCounts;
import org.apache.flink.runtime.execution.ExecutionState;
import org.apache.flink.runtime.executiongraph.AccessExecutionGraph;
import org.apache.flink.runtime.executiongraph.AccessExecutionVertex;
import org.apache.flink.runtime.jobgraph.JobGraph;
import org.apache.flink.runtime.jobgraph.SavepointRestoreSettings;
import org.apache.flink.runtime.minicluster.MiniCluster;
import org.apache.flink.runtime.minicluster.MiniClusterConfiguration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/**
 * A Flink cluster in this JVM: a JobManager and TaskManagers, with all that there is between them
 * but the network.
 */
public final class Cluster implements AutoCloseable {
  private static final long PATIENCE_SECONDS = 120;

  private final MiniCluster cluster;
  private int taskManagers;

  /** Starts one. */
  public Cluster(int taskManagers, int slotsEach) throws Exception {
    this.taskManagers = taskManagers;
    Configuration configuration = new Configuration();
    configuration.setString("taskmanager.memory.network.min", "64m");
    configuration.setString("taskmanager.memory.network.max", "64m");
    configuration.setString("taskmanager.memory.managed.size", "64m");
    // Whoever is asked may not have had a processor for a while.
    configuration.setString("pekko.ask.timeout", "2min");
    configuration.setString("heartbeat.timeout", "180000");
    // Of splits whose fetchers do not end at once; it is 30 s otherwise.
    configuration.setString("source.reader.close.timeout", "200");
    cluster =
        new MiniCluster(
            new MiniClusterConfiguration.Builder()
                .setConfiguration(configuration)
                .setNumTaskManagers(taskManagers)
                .setNumSlotsPerTaskManager(slotsEach)
                .withRandomPorts()
                .build());
    cluster.start();
  }

  /**
   * Submits a pipeline; `savepoint` null: from the beginning. Returns when all of its tasks run.
   */
  public Job submit(Descriptor descriptor, FlinkSettings settings, String savepoint)
      throws Exception {
    StreamExecutionEnvironment environment = new StreamExecutionEnvironment();
    JobBuilder.build(environment, descriptor, settings);
    JobGraph graph = environment.getStreamGraph().getJobGraph();
    if (savepoint != null) {
      graph.setSavepointRestoreSettings(SavepointRestoreSettings.forPath(savepoint));
    }
    Job job = new Job(cluster.submitJob(graph).get(PATIENCE_SECONDS, TimeUnit.SECONDS).getJobID());
    job.awaitRunning();
    return job;
  }

  /** Ends a TaskManager with everything that runs in it, and starts another. */
  public void replaceTaskManager(int index) throws Exception {
    cluster.terminateTaskManager(index).get(PATIENCE_SECONDS, TimeUnit.SECONDS);
    cluster.startTaskManager();
    taskManagers++;
  }

  /** The number of the TaskManager that was started last. */
  public int newestTaskManager() {
    return taskManagers - 1;
  }

  @Override
  public void close() throws Exception {
    cluster.close();
  }

  /** A job that was submitted. */
  public final class Job {
    private final JobID id;

    private Job(JobID id) {
      this.id = id;
    }

    private AccessExecutionGraph graph() {
      try {
        return cluster.getExecutionGraph(id).get(PATIENCE_SECONDS, TimeUnit.SECONDS);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new IllegalStateException(e);
      } catch (Exception e) {
        throw new IllegalStateException("the job cannot be looked at", e);
      }
    }

    /** How often the task that was restarted most was restarted. */
    public int restarts() {
      return StreamSupport.stream(graph().getAllExecutionVertices().spliterator(), false)
          .mapToInt(vertex -> vertex.getCurrentExecutionAttempt().getAttemptNumber())
          .max()
          .orElseThrow();
    }

    /** How many checkpoints have gone well, been given up, and are being taken. */
    public CheckpointStatsCounts checkpoints() {
      return graph().getCheckpointStatsSnapshot().getCounts();
    }

    /** Why it was last restarted or failed, in words; for messages. */
    public String failure() {
      var info = graph().getFailureInfo();
      return info == null ? "none" : info.getExceptionAsString();
    }

    /** Waits until all tasks run; fails when the job has ended instead. */
    public void awaitRunning() {
      Sidecar.waitUntil(
          "all tasks to run",
          () -> {
            AccessExecutionGraph graph = graph();
            if (graph.getState().isGloballyTerminalState()) {
              throw new IllegalStateException("the job is " + graph.getState() + ": " + failure());
            }
            return graph.getState() == JobStatus.RUNNING
                && StreamSupport.stream(graph.getAllExecutionVertices().spliterator(), false)
                    .map(AccessExecutionVertex::getExecutionState)
                    .allMatch(state -> state == ExecutionState.RUNNING);
          });
    }

    /** Stops with a savepoint, which commits all that has come out; returns its path. */
    public String stop(Path folder) throws Exception {
      String savepoint =
          cluster
              .stopWithSavepoint(
                  id, folder.toUri().toString(), false, SavepointFormatType.CANONICAL)
              .get(PATIENCE_SECONDS, TimeUnit.SECONDS);
      Sidecar.waitUntil("the job to end", () -> graph().getState().isGloballyTerminalState());
      return savepoint;
    }

    /** Ends it, if it has not ended. */
    public void cancel() throws Exception {
      if (!graph().getState().isGloballyTerminalState()) {
        cluster.cancelJob(id).get(PATIENCE_SECONDS, TimeUnit.SECONDS);
        Sidecar.waitUntil("the job to end", () -> graph().getState().isGloballyTerminalState());
      }
    }
  }
}
