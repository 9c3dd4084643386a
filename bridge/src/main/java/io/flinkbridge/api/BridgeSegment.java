package io.flinkbridge.api;

import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.descriptor.Segment;
import io.flinkbridge.job.JobBuilder;
import io.flinkbridge.operator.Routes;
import io.flinkbridge.record.BridgeRecord;
import java.util.Objects;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;

/**
 * A segment of a pipeline as one operator of a Flink job that somebody writes in Java:
 *
 * <pre>{@code
 * BridgeSegment score = BridgeSegment.of(Descriptor.read(Path.of("shop.descriptor.yaml")), "score");
 * DataStream<BridgeRecord> in = events.map(event -> BridgeRecord.of(event.toJson(), event.time())).returns(BridgeRecord.class);
 * SingleOutputStreamOperator<BridgeRecord> out = BridgeSegment.apply(in, score);
 * DataStream<BridgeRecord> big = score.route(out, "big");
 * }</pre>
 *
 * <p>Records of a keyed segment need their key ({@link BridgeRecord#withKey}); of one with several
 * inputs, the number of theirs ({@link BridgeRecord#withInput}). The sidecar beside each
 * TaskManager has the whole descriptor; segments that no job uses cost nothing there.
 */
public final class BridgeSegment {
  private final Descriptor descriptor;
  private final Segment segment;
  private final FlinkSettings settings;

  private BridgeSegment(Descriptor descriptor, Segment segment, FlinkSettings settings) {
    this.descriptor = descriptor;
    this.segment = segment;
    this.settings = settings;
  }

  /** The segment of that name; its sidecar is where the settings have it without a word. */
  public static BridgeSegment of(Descriptor descriptor, String name) {
    return new BridgeSegment(descriptor, descriptor.segment(name), FlinkSettings.defaults());
  }

  /**
   * The same with a deployment's settings, of which those of the sidecar count: the others are the
   * job's own affair.
   */
  public BridgeSegment with(FlinkSettings other) {
    return new BridgeSegment(descriptor, segment, Objects.requireNonNull(other));
  }

  /** The same with a sidecar at another address, {@code unix:/path} or {@code host:port}. */
  public BridgeSegment at(String sidecar) {
    return with(settings.withSidecar(sidecar));
  }

  /**
   * Puts the segment behind a stream. The operator has the segment's name, parallelism and uid;
   * whoever calls may give it others, but not another number of key groups. A stream that goes into
   * a keyed segment is keyed here.
   */
  public static SingleOutputStreamOperator<BridgeRecord> apply(
      DataStream<BridgeRecord> stream, BridgeSegment segment) {
    return JobBuilder.apply(stream, segment.descriptor, segment.segment, segment.settings);
  }

  /**
   * What leaves the segment on one of its routes, as the descriptor calls them: {@code big}, {@code
   * main}, {@code score.dead_letter}.
   */
  public DataStream<BridgeRecord> route(
      SingleOutputStreamOperator<BridgeRecord> output, String route) {
    if (!segment.routes().contains(route)) {
      throw new IllegalArgumentException(
          "segment \""
              + segment.name()
              + "\" has no route \""
              + route
              + "\"; "
              + (segment.routes().isEmpty()
                  ? "it has one output"
                  : "it has " + String.join(", ", segment.routes())));
    }
    return output.getSideOutput(Routes.tag(segment.name(), route));
  }
}
