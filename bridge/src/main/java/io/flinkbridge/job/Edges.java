package io.flinkbridge.job;

import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.Input;
import io.flinkbridge.descriptor.Segment;
import io.flinkbridge.operator.Routes;
import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.BridgeRecordTypeInfo;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;

/** The streams of a job by what makes them, and how they reach what reads them. */
final class Edges {
  private final Descriptor descriptor;
  private final Map<String, DataStream<BridgeRecord>> sources = new HashMap<>();
  private final Map<Integer, SingleOutputStreamOperator<BridgeRecord>> segments = new HashMap<>();

  Edges(Descriptor descriptor) {
    this.descriptor = descriptor;
  }

  void addSource(String name, DataStream<BridgeRecord> stream) {
    sources.put(name, stream);
  }

  void addSegment(int id, SingleOutputStreamOperator<BridgeRecord> stream) {
    segments.put(id, stream);
  }

  /**
   * What a segment or sink reads: all of its inputs, partitioned and mixed. Records that come in by
   * another input than the first carry its number, which is put on before they are partitioned,
   * where they are made.
   */
  DataStream<BridgeRecord> read(List<Input> inputs, String reader, boolean numbered) {
    List<DataStream<BridgeRecord>> streams = new ArrayList<>();
    for (int i = 0; i < inputs.size(); i++) {
      Input input = inputs.get(i);
      DataStream<BridgeRecord> stream = output(input);
      if (numbered && inputs.size() > 1) {
        stream = number(stream, i, parallelism(input), reader);
      }
      streams.add(partition(stream, input));
    }
    DataStream<BridgeRecord> first = streams.remove(0);
    return streams.isEmpty() ? first : union(first, streams);
  }

  @SuppressWarnings("unchecked")
  private static DataStream<BridgeRecord> union(
      DataStream<BridgeRecord> first, List<DataStream<BridgeRecord>> others) {
    return first.union(others.toArray(DataStream[]::new));
  }

  /** What a source or segment puts out, on one of its routes. */
  private DataStream<BridgeRecord> output(Input input) {
    if (input.fromSource()) {
      return sources.get(descriptor.sources().get(input.index()).name());
    }
    Segment segment = descriptor.segments().get(input.index());
    SingleOutputStreamOperator<BridgeRecord> stream = segments.get(input.index());
    return segment.routes().isEmpty()
        ? stream
        : stream.getSideOutput(Routes.tag(segment.name(), segment.routes().get(input.route())));
  }

  private int parallelism(Input input) {
    return input.fromSource()
        ? descriptor.sources().get(input.index()).parallelism()
        : descriptor.segments().get(input.index()).parallelism();
  }

  private static DataStream<BridgeRecord> number(
      DataStream<BridgeRecord> stream, int number, int parallelism, String reader) {
    return stream
        .map(record -> record.withInput(number))
        .returns(BridgeRecordTypeInfo.INSTANCE)
        .setParallelism(parallelism)
        .uid(reader + "-input-" + number)
        .name(reader + " input " + number);
  }

  /** Hash is left to keyBy, which comes behind the union. */
  private static DataStream<BridgeRecord> partition(DataStream<BridgeRecord> stream, Input input) {
    return switch (input.partition()) {
      case FORWARD -> stream.forward();
      case REBALANCE -> stream.rebalance();
      case HASH -> stream;
      case BROADCAST -> stream.broadcast();
      case CUSTOM -> PartitionBy.apply(stream, input.partitionBy());
    };
  }
}
