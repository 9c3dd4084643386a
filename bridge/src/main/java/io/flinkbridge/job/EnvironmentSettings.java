package io.flinkbridge.job;

import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.descriptor.Options;
import java.time.Duration;
import org.apache.flink.api.common.RuntimeExecutionMode;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.ExecutionOptions;
import org.apache.flink.configuration.ExternalizedCheckpointRetention;
import org.apache.flink.configuration.PipelineOptions;
import org.apache.flink.configuration.RestartStrategyOptions;
import org.apache.flink.configuration.StateBackendOptions;
import org.apache.flink.core.execution.CheckpointingMode;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** The settings of a deployment in Flink's own words. */
final class EnvironmentSettings {
  private EnvironmentSettings() {}

  /** Applies them to an environment. What they do not speak of stays as the cluster has it. */
  static void apply(
      StreamExecutionEnvironment environment, Descriptor descriptor, FlinkSettings settings) {
    environment.configure(
        configuration(descriptor, settings), EnvironmentSettings.class.getClassLoader());
    environment.setRuntimeMode(RuntimeExecutionMode.STREAMING);
    environment.setMaxParallelism(descriptor.segments().get(0).maxParallelism());
  }

  /** The same as a configuration. */
  static Configuration configuration(Descriptor descriptor, FlinkSettings settings) {
    Configuration configuration = new Configuration();
    configuration.set(PipelineOptions.NAME, descriptor.pipeline());
    configuration.set(ExecutionOptions.RUNTIME_MODE, RuntimeExecutionMode.STREAMING);
    configuration.set(ExecutionOptions.BUFFER_TIMEOUT, settings.duration("buffer_timeout"));
    configuration.set(PipelineOptions.OBJECT_REUSE, settings.options().flag("object_reuse"));
    configuration.set(
        StateBackendOptions.STATE_BACKEND, settings.options().needed("state_backend"));
    if (settings.hasCheckpoints()) {
      checkpoints(configuration, settings);
    }
    restarts(configuration, settings);
    putProperties(configuration, settings);
    return configuration;
  }

  private static void checkpoints(Configuration configuration, FlinkSettings settings) {
    Options options = settings.options();
    boolean exactly = settings.delivery() == FlinkSettings.Delivery.EXACTLY_ONCE;
    configuration.set(
        CheckpointingOptions.CHECKPOINTING_CONSISTENCY_MODE,
        exactly ? CheckpointingMode.EXACTLY_ONCE : CheckpointingMode.AT_LEAST_ONCE);
    configuration.set(
        CheckpointingOptions.CHECKPOINTING_INTERVAL, settings.duration("checkpoint_interval"));
    configuration.set(
        CheckpointingOptions.CHECKPOINTING_TIMEOUT, settings.duration("checkpoint_timeout"));
    configuration.set(
        CheckpointingOptions.MIN_PAUSE_BETWEEN_CHECKPOINTS, settings.duration("checkpoint_pause"));
    configuration.set(
        CheckpointingOptions.TOLERABLE_FAILURE_NUMBER, (int) options.number("tolerable_failures"));
    configuration.set(CheckpointingOptions.ENABLE_UNALIGNED, options.flag("unaligned"));
    configuration.set(CheckpointingOptions.INCREMENTAL_CHECKPOINTS, options.flag("incremental"));
    configuration.set(
        CheckpointingOptions.EXTERNALIZED_CHECKPOINT_RETENTION,
        options.needed("checkpoint_retention").equals("retain")
            ? ExternalizedCheckpointRetention.RETAIN_ON_CANCELLATION
            : ExternalizedCheckpointRetention.DELETE_ON_CANCELLATION);
    settings
        .checkpointStorage()
        .ifPresent(
            folder -> {
              configuration.set(CheckpointingOptions.CHECKPOINT_STORAGE, "filesystem");
              configuration.set(
                  CheckpointingOptions.CHECKPOINTS_DIRECTORY, Places.uri(folder).toString());
            });
  }

  private static void restarts(Configuration configuration, FlinkSettings settings) {
    String restart = settings.options().text("restart").orElse("none");
    switch (restart) {
      case "fixed_delay" -> {
        configuration.set(RestartStrategyOptions.RESTART_STRATEGY, "fixed-delay");
        configuration.set(
            RestartStrategyOptions.RESTART_STRATEGY_FIXED_DELAY_ATTEMPTS,
            (int) settings.options().number("restart_attempts"));
        configuration.set(
            RestartStrategyOptions.RESTART_STRATEGY_FIXED_DELAY_DELAY,
            settings.duration("restart_delay"));
      }
      case "exponential_delay" -> {
        Duration first = settings.duration("restart_delay");
        Duration longest = settings.duration("restart_delay_max");
        configuration.set(RestartStrategyOptions.RESTART_STRATEGY, "exponential-delay");
        configuration.set(
            RestartStrategyOptions.RESTART_STRATEGY_EXPONENTIAL_DELAY_INITIAL_BACKOFF,
            first.isZero() ? Duration.ofMillis(1) : first);
        configuration.set(
            RestartStrategyOptions.RESTART_STRATEGY_EXPONENTIAL_DELAY_MAX_BACKOFF, longest);
      }
      default -> configuration.set(RestartStrategyOptions.RESTART_STRATEGY, "disable");
    }
  }

  /**
   * Further settings under Flink's names; one that has a setting here is refused: each has one
   * place.
   */
  private static void putProperties(Configuration configuration, FlinkSettings settings) {
    settings
        .options()
        .map("properties")
        .forEach(
            (name, value) -> {
              if (configuration.containsKey(name)) {
                throw new UnfitException(
                    "properties in section flink: "
                        + name
                        + " has a setting of its own there, or follows from one; `--explain` shows them");
              }
              configuration.setString(name, value);
            });
  }
}
