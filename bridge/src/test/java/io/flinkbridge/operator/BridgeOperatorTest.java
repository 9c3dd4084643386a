package io.flinkbridge.operator;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.testing.Harness;
import io.flinkbridge.testing.Segments;
import io.flinkbridge.testing.Sidecar;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.streaming.runtime.streamrecord.LatencyMarker;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** The operator over a real sidecar, with steps that remember nothing. */
final class BridgeOperatorTest {
  private static final String PIPELINE =
      """
      name: plain
      sources:
        in: { kind: generator }
      steps:
        - { name: pass, kind: passthrough }
      sinks:
        out: { kind: discard }
      """;

  private static Sidecar sidecar;

  @BeforeAll
  static void start() throws Exception {
    sidecar = Sidecar.start(PIPELINE, 2);
  }

  @AfterAll
  static void stop() throws Exception {
    sidecar.close();
  }

  @Test
  void everythingComesOutInTheOrderInWhichItCame() throws Exception {
    try (var harness = Harness.of(Segments.of(sidecar, 0))) {
      harness.open();
      List<String> expected = new ArrayList<>();
      for (int i = 0; i < 1000; i++) {
        harness.processElement(new StreamRecord<>(BridgeRecord.of("r" + i), i));
        expected.add("r" + i);
        if (i % 100 == 50) {
          harness.processWatermark(i);
          expected.add("W" + i);
        }
        if (i % 250 == 10) {
          harness.processWatermarkStatus(WatermarkStatus.IDLE);
          harness.processWatermarkStatus(WatermarkStatus.ACTIVE);
          expected.add(WatermarkStatus.IDLE.toString());
          expected.add(WatermarkStatus.ACTIVE.toString());
        }
        if (i % 300 == 20) {
          LatencyMarker marker = new LatencyMarker(i, harness.getOperator().getOperatorID(), 0);
          harness.getOneInputOperator().processLatencyMarker(marker);
          expected.add(marker.toString());
        }
      }
      Harness.runUntil(harness, expected.size());
      assertEquals(expected, Harness.output(harness));
    }
  }
}
