package io.flinkbridge.bench;

import com.fasterxml.jackson.databind.JsonNode;
import io.flinkbridge.bench.Bench.Engine;
import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.descriptor.InvalidFileException;
import io.flinkbridge.descriptor.Segment;
import io.flinkbridge.job.JobBuilder;
import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.BridgeRecordTypeInfo;
import java.nio.file.Path;
import org.apache.flink.streaming.api.datastream.DataStream;

/**
 * The segments of a descriptor, one behind the other, in place of Java's logic; source and sink are
 * the same. Lines become records by a map, which is counted, too.
 */
final class Bridge implements Engine {
  private final Descriptor descriptor;
  private final String address;

  Bridge(String descriptor, String address) {
    try {
      this.descriptor = Descriptor.read(Path.of(descriptor));
    } catch (InvalidFileException e) {
      throw new IllegalArgumentException(e);
    }
    this.address = address;
  }

  @Override
  public void build(DataStream<String> lines, JsonNode job) {
    DataStream<BridgeRecord> records =
        lines.map(BridgeRecord::of).returns(BridgeRecordTypeInfo.INSTANCE).name("records");
    FlinkSettings settings = FlinkSettings.defaults().withSidecar(address);
    for (Segment segment : descriptor.segments()) {
      records =
          JobBuilder.apply(records, descriptor, segment, settings)
              .setParallelism(records.getParallelism()); // the job's, as Java's logic has it
    }
    records.sinkTo(
        new MarkSink<>(
            job.get("marks").asText(), record -> record.payload.length, job.has("rate")));
  }
}
