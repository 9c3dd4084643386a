package io.flinkbridge.job;

import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.descriptor.Options;
import io.flinkbridge.descriptor.Source;
import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.BridgeRecordTypeInfo;
import java.time.Duration;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.connector.source.util.ratelimit.RateLimiterStrategy;
import org.apache.flink.connector.datagen.source.DataGeneratorSource;
import org.apache.flink.connector.file.src.FileSource;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** The sources of a pipeline as Flink's, with their event time. */
final class Sources {
  private static final Duration ALIGN_DRIFT = Duration.ofMinutes(1);

  private Sources() {}

  /** Adds a source to a job. */
  static DataStream<BridgeRecord> add(
      StreamExecutionEnvironment environment,
      Source source,
      Descriptor descriptor,
      FlinkSettings settings) {
    EventTime time =
        source
            .options()
            .text("timestamp")
            .map(program -> new EventTime(source.name(), program))
            .orElse(null);
    org.apache.flink.api.connector.source.Source<BridgeRecord, ?, ?> made =
        switch (source.kind()) {
          case "file" -> file(source, time);
          case "generator" -> generator(source, time);
          case "kafka" -> KafkaEnds.source(source, time, descriptor, settings);
          default ->
              throw new UnfitException(
                  "source \""
                      + source.name()
                      + "\": the Flink application has no sources of kind "
                      + source.kind());
        };
    return environment
        .fromSource(made, watermarks(source), source.name(), BridgeRecordTypeInfo.INSTANCE)
        .setParallelism(source.parallelism())
        .uid("source-" + source.name());
  }

  private static FileSource<BridgeRecord> file(Source source, EventTime time) {
    return FileSource.forRecordStreamFormat(
            new BytesLineFormat(source.name(), time), Places.path(source.options().needed("path")))
        .build();
  }

  private static DataGeneratorSource<BridgeRecord> generator(Source source, EventTime time) {
    Options options = source.options();
    long count = options.number("count");
    long rate = options.number("rate");
    Generated generated =
        new Generated(
            source.name(), options.text("program").map(JqProgram::new).orElse(null), time);
    return new DataGeneratorSource<>(
        generated,
        count == 0 ? Long.MAX_VALUE : count,
        rate == 0 ? RateLimiterStrategy.noOp() : RateLimiterStrategy.perSecond(rate),
        BridgeRecordTypeInfo.INSTANCE);
  }

  /** Whether a source goes on for ever. */
  static boolean isUnbounded(Source source) {
    return switch (source.kind()) {
      case "generator" -> source.options().number("count") == 0;
      case "kafka" -> !source.options().text("until").orElse("never").equals("latest");
      default -> false;
    };
  }

  /** How event time goes on with the records of a source. */
  static WatermarkStrategy<BridgeRecord> watermarks(Source source) {
    Options options = source.options();
    WatermarkStrategy<BridgeRecord> strategy =
        WatermarkStrategy.<BridgeRecord>forBoundedOutOfOrderness(
                Duration.ofMillis(options.number("out_of_orderness")))
            .withTimestampAssigner((record, before) -> record.timestamp);
    if (options.number("idle") > 0) {
      strategy = strategy.withIdleness(Duration.ofMillis(options.number("idle")));
    }
    if (options.has("align")) {
      Duration drift =
          options.has("align_drift")
              ? Duration.ofMillis(options.number("align_drift"))
              : ALIGN_DRIFT;
      strategy = strategy.withWatermarkAlignment(options.needed("align"), drift);
    }
    return strategy;
  }
}
