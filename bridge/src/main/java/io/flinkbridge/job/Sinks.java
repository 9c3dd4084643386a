package io.flinkbridge.job;

import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.descriptor.Options;
import io.flinkbridge.descriptor.Sink;
import io.flinkbridge.record.BridgeRecord;
import java.io.IOException;
import java.io.OutputStream;
import java.time.Duration;
import org.apache.flink.api.common.serialization.Encoder;
import org.apache.flink.configuration.MemorySize;
import org.apache.flink.connector.file.sink.FileSink;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.functions.sink.filesystem.OutputFileConfig;
import org.apache.flink.streaming.api.functions.sink.filesystem.bucketassigners.BasePathBucketAssigner;
import org.apache.flink.streaming.api.functions.sink.filesystem.rollingpolicies.DefaultRollingPolicy;
import org.apache.flink.streaming.api.functions.sink.filesystem.rollingpolicies.OnCheckpointRollingPolicy;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;

/** The sinks of a pipeline as Flink's. */
final class Sinks {
  private Sinks() {}

  /** Adds a sink behind a stream. */
  static void add(
      DataStream<BridgeRecord> stream, Sink sink, Descriptor descriptor, FlinkSettings settings) {
    org.apache.flink.api.connector.sink2.Sink<BridgeRecord> made =
        switch (sink.kind()) {
          case "file" -> isStandardOutput(sink) ? new PrintSink() : file(sink);
          case "print" -> new PrintSink();
          case "discard" -> new DiscardingSink<>();
          case "kafka" -> KafkaEnds.sink(sink, descriptor, settings);
          default ->
              throw new UnfitException(
                  "sink \""
                      + sink.name()
                      + "\": the Flink application has no sinks of kind "
                      + sink.kind());
        };
    stream
        .sinkTo(made)
        .setParallelism(sink.parallelism())
        .uid("sink-" + sink.name())
        .name(sink.name());
  }

  /** Whether a file sink means standard output. */
  static boolean isStandardOutput(Sink sink) {
    return sink.options().needed("path").equals("-");
  }

  /** A folder of parts. Without options for rolling each checkpoint finishes the part at hand. */
  private static FileSink<BridgeRecord> file(Sink sink) {
    Options options = sink.options();
    FileSink.DefaultRowFormatBuilder<BridgeRecord> builder =
        FileSink.<BridgeRecord>forRowFormat(Places.path(options.needed("path")), new LineEncoder())
            .withBucketAssigner(new BasePathBucketAssigner<>())
            .withOutputFileConfig(OutputFileConfig.builder().withPartPrefix(sink.name()).build());
    if (!options.has("roll_bytes") && !options.has("roll_time")) {
      return builder.withRollingPolicy(OnCheckpointRollingPolicy.build()).build();
    }
    DefaultRollingPolicy.PolicyBuilder policy =
        DefaultRollingPolicy.builder()
            .withMaxPartSize(
                new MemorySize(
                    options.has("roll_bytes") ? options.number("roll_bytes") : Long.MAX_VALUE))
            .withRolloverInterval(
                Duration.ofMillis(
                    options.has("roll_time") ? options.number("roll_time") : Long.MAX_VALUE / 2))
            .withInactivityInterval(
                Duration.ofMillis(
                    options.has("roll_time") ? options.number("roll_time") : Long.MAX_VALUE / 2));
    return builder.withRollingPolicy(policy.build()).build();
  }

  /** A payload and the end of its line. */
  private static final class LineEncoder implements Encoder<BridgeRecord> {
    private static final long serialVersionUID = 1;

    @Override
    public void encode(BridgeRecord record, OutputStream stream) throws IOException {
      stream.write(record.payload);
      stream.write('\n');
    }
  }
}
