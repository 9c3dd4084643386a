package io.flinkbridge.api;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.BridgeRecordTypeInfo;
import io.flinkbridge.testing.Sidecar;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.test.junit5.MiniClusterExtension;
import org.apache.flink.util.CloseableIterator;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.extension.RegisterExtension;

/** Segments in a job that is written in Java. */
@Timeout(300)
class BridgeSegmentTest {
  @RegisterExtension static final MiniClusterExtension CLUSTER = new MiniClusterExtension();

  private static final String PIPELINE =
      """
      name: own
      sources:
        in: { kind: generator }
      steps:
        - { name: parse, kind: parse_json, on_error: dead_letter }
        - { name: by_user, kind: key_by, key: .user }
        - { name: sums, kind: aggregate, fields: { sum: sum(.n) } }
      sinks:
        out: { kind: discard, from: sums }
        failed: { kind: discard, from: dead_letter }
      """;

  private static List<String> take(DataStream<BridgeRecord> stream) throws Exception {
    List<String> texts = new ArrayList<>();
    try (CloseableIterator<BridgeRecord> records = stream.executeAndCollect("test")) {
      records.forEachRemaining(record -> texts.add(record.text()));
    }
    return texts;
  }

  @Test
  void keyedSegmentsKeepTheirStateByKey() throws Exception {
    try (Sidecar sidecar = Sidecar.start(PIPELINE, 1)) {
      BridgeSegment sums =
          BridgeSegment.of(Descriptor.read(sidecar.descriptorPath()), "sums").at(sidecar.address());
      List<BridgeRecord> records = new ArrayList<>();
      for (int n = 0; n < 6; n++) {
        byte[] key = (n % 2 == 0 ? "even" : "odd").getBytes(StandardCharsets.UTF_8);
        records.add(BridgeRecord.of("{\"n\":" + n + "}").withKey(key));
      }
      StreamExecutionEnvironment environment = StreamExecutionEnvironment.getExecutionEnvironment();
      DataStream<BridgeRecord> in =
          environment.fromData(BridgeRecordTypeInfo.INSTANCE, records.toArray(BridgeRecord[]::new));
      List<String> out = take(BridgeSegment.apply(in, sums));
      assertEquals(6, out.size());
      assertTrue(out.contains("{\"key\":\"even\",\"sum\":6}"), out.toString());
      assertTrue(out.contains("{\"key\":\"odd\",\"sum\":9}"), out.toString());
    }
  }

  @Test
  void routesAreSideOutputs() throws Exception {
    try (Sidecar sidecar = Sidecar.start(PIPELINE, 1)) {
      BridgeSegment parse =
          BridgeSegment.of(Descriptor.read(sidecar.descriptorPath()), "parse..by_user")
              .at(sidecar.address());
      StreamExecutionEnvironment environment = StreamExecutionEnvironment.getExecutionEnvironment();
      DataStream<BridgeRecord> in =
          environment.fromData(
              BridgeRecordTypeInfo.INSTANCE,
              BridgeRecord.of("{\"user\": 1}"),
              BridgeRecord.of("no JSON"));
      SingleOutputStreamOperator<BridgeRecord> out = BridgeSegment.apply(in, parse);
      assertEquals(List.of("no JSON"), take(parse.route(out, "parse.dead_letter")));
      Exception refused =
          assertThrows(IllegalArgumentException.class, () -> parse.route(out, "big"));
      assertTrue(
          refused.getMessage().contains("it has main, parse.dead_letter"), refused.getMessage());
    }
  }

  @Test
  void unknownSegmentsAreRefused() throws Exception {
    try (Sidecar sidecar = Sidecar.prepare(PIPELINE, 1)) {
      Descriptor descriptor = Descriptor.read(sidecar.descriptorPath());
      assertThrows(IllegalArgumentException.class, () -> BridgeSegment.of(descriptor, "none"));
    }
  }
}
