package io.flinkbridge.operator;

import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.BridgeRecordTypeInfo;
import org.apache.flink.util.OutputTag;

/** The side outputs of segments with routes. */
public final class Routes {
  private Routes() {}

  /** The side output that records of one route of a segment leave by. */
  public static OutputTag<BridgeRecord> tag(String segment, String route) {
    return new OutputTag<>(segment + "." + route, BridgeRecordTypeInfo.INSTANCE);
  }
}
