package io.flinkbridge.job;

import com.fasterxml.jackson.databind.JsonNode;
import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.KeyHash;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import org.apache.flink.api.common.functions.Partitioner;
import org.apache.flink.api.java.functions.KeySelector;
import org.apache.flink.streaming.api.datastream.DataStream;

/**
 * A partition by what a jq program makes of the payload: a whole number that is not negative is the
 * subtask, modulo how many there are; of anything else the hash of its bytes is. State is not kept
 * by it: that wants a key_by.
 */
final class PartitionBy implements KeySelector<BridgeRecord, Integer> {
  private static final long serialVersionUID = 1;
  private static final int SHOWN = 200;

  private final JqProgram program;

  PartitionBy(String program) {
    this.program = new JqProgram(program);
  }

  /** A stream partitioned by a program. */
  static DataStream<BridgeRecord> apply(DataStream<BridgeRecord> stream, String program) {
    return stream.partitionCustom(new Modulo(), new PartitionBy(program));
  }

  @Override
  public Integer getKey(BridgeRecord record) throws IOException {
    try {
      JsonNode value = program.apply(record.payload);
      return value.isIntegralNumber() && value.canConvertToLong() && value.longValue() >= 0
          ? (int) (value.longValue() & Integer.MAX_VALUE)
          : KeyHash.of(JqProgram.bytes(value)) & Integer.MAX_VALUE;
    } catch (IOException e) {
      String text =
          new String(
              record.payload, 0, Math.min(record.payload.length, SHOWN), StandardCharsets.UTF_8);
      throw new IOException(
          "no partition by `" + program + "`: " + e.getMessage() + "\n  record: " + text, e);
    }
  }

  private static final class Modulo implements Partitioner<Integer> {
    private static final long serialVersionUID = 1;

    @Override
    public int partition(Integer key, int partitions) {
      return key % partitions;
    }
  }
}
