package io.flinkbridge;

import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.job.JobBuilder;
import java.nio.file.Path;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** The application's entry point: turns a descriptor into a Flink job and submits it. */
public final class Main {
  private Main() {}

  /** Runs it. */
  public static void main(String[] args) throws Exception {
    Descriptor descriptor = Descriptor.read(Path.of(args[1]));
    FlinkSettings settings = FlinkSettings.defaults();
    StreamExecutionEnvironment environment = StreamExecutionEnvironment.getExecutionEnvironment();
    JobBuilder.build(environment, descriptor, settings);
    environment.execute(descriptor.pipeline());
  }
}
