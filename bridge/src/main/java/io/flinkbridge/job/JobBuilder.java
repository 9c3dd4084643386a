package io.flinkbridge.job;

import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.descriptor.Segment;
import io.flinkbridge.descriptor.Sink;
import io.flinkbridge.descriptor.Source;
import io.flinkbridge.operator.BridgeOperatorFactory;
import io.flinkbridge.operator.SegmentSettings;
import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.BridgeRecordTypeInfo;
import org.apache.flink.api.java.functions.KeySelector;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/**
 * A descriptor into a Flink job: a source, a bridge operator, a sink for each that the descriptor
 * has, and between them its edges. Every operator is called after its name in the descriptor, in
 * the web UI and in savepoints, never after its place.
 */
public final class JobBuilder {
  private final StreamExecutionEnvironment environment;
  private final Descriptor descriptor;
  private final FlinkSettings settings;
  private final Edges edges;

  private JobBuilder(
      StreamExecutionEnvironment environment, Descriptor descriptor, FlinkSettings settings) {
    this.environment = environment;
    this.descriptor = descriptor;
    this.settings = settings;
    this.edges = new Edges(descriptor);
  }

  /**
   * Puts the job into an environment, with the settings applied to it; {@code
   * environment.execute()} runs it.
   */
  public static void build(
      StreamExecutionEnvironment environment, Descriptor descriptor, FlinkSettings settings) {
    JobChecks.check(descriptor, settings);
    EnvironmentSettings.apply(environment, descriptor, settings);
    JobBuilder builder = new JobBuilder(environment, descriptor, settings);
    descriptor.sources().forEach(builder::addSource);
    descriptor.segments().forEach(builder::addSegment);
    descriptor.sinks().forEach(builder::addSink);
  }

  private void addSource(Source source) {
    edges.addSource(source.name(), Sources.add(environment, source, descriptor, settings));
  }

  private void addSegment(Segment segment) {
    DataStream<BridgeRecord> input = edges.read(segment.inputs(), uid(segment), true);
    edges.addSegment(segment.id(), apply(input, descriptor, segment, settings));
  }

  private void addSink(Sink sink) {
    Sinks.add(edges.read(sink.inputs(), "sink-" + sink.name(), false), sink, descriptor, settings);
  }

  /**
   * The operator of a segment behind a stream, which is keyed by the hash of its records' keys if
   * the segment is. It has the segment's name, parallelism and uid.
   */
  public static SingleOutputStreamOperator<BridgeRecord> apply(
      DataStream<BridgeRecord> input,
      Descriptor descriptor,
      Segment segment,
      FlinkSettings settings) {
    SegmentSettings needed =
        new SegmentSettings(
            descriptor.pipeline(),
            descriptor.topologyHash(),
            segment.id(),
            segment.name(),
            segment.keyed(),
            segment.maxParallelism(),
            segment.routes(),
            settings.sidecar(),
            tuning(settings));
    DataStream<BridgeRecord> keyed = segment.keyed() ? input.keyBy(new KeyHashSelector()) : input;
    return keyed
        .transform(segment.name(), BridgeRecordTypeInfo.INSTANCE, new BridgeOperatorFactory(needed))
        .setParallelism(segment.parallelism())
        .setMaxParallelism(segment.maxParallelism())
        .uid(uid(segment));
  }

  private static String uid(Segment segment) {
    return "segment-" + segment.name();
  }

  /** Times and sizes of the operators, as a deployment has them. */
  public static SegmentSettings.Tuning tuning(FlinkSettings settings) {
    return new SegmentSettings.Tuning(
        settings.duration("sidecar_wait"),
        settings.duration("answer_timeout"),
        settings.duration("in_flight_time"),
        (int) settings.options().number("in_flight_bytes"),
        (int) settings.options().number("batch_bytes"));
  }

  /** Flink's key of a record: the hash of its key. */
  private static final class KeyHashSelector implements KeySelector<BridgeRecord, Integer> {
    private static final long serialVersionUID = 1;

    @Override
    public Integer getKey(BridgeRecord record) {
      return record.keyHash;
    }
  }
}
