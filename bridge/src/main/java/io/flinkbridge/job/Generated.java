package io.flinkbridge.job;

import com.fasterxml.jackson.databind.node.LongNode;
import io.flinkbridge.record.BridgeRecord;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import org.apache.flink.connector.datagen.source.GeneratorFunction;

/** Made-up records: what a jq program makes of the running number, or the number itself. */
final class Generated implements GeneratorFunction<Long, BridgeRecord> {
  private static final long serialVersionUID = 1;

  private final String source;
  private final JqProgram program; /* null: the number */
  private final EventTime time; /* null: the time of making */

  Generated(String source, JqProgram program, EventTime time) {
    this.source = source;
    this.program = program;
    this.time = time;
  }

  @Override
  public BridgeRecord map(Long number) throws IOException {
    byte[] payload =
        program == null ? Long.toString(number).getBytes(StandardCharsets.UTF_8) : make(number);
    return BridgeRecord.of(payload, time == null ? System.currentTimeMillis() : time.of(payload));
  }

  private byte[] make(long number) throws IOException {
    try {
      return JqProgram.JSON.writeValueAsBytes(program.apply(LongNode.valueOf(number)));
    } catch (IOException e) {
      throw new IOException(
          "source \"" + source + "\": record " + number + ": " + e.getMessage(), e);
    }
  }
}
