package io.flinkbridge.job;

import io.flinkbridge.record.BridgeRecord;
import java.io.IOException;
import java.io.PrintStream;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;

/** Payloads to standard output, a line each, whole lines at a time. */
final class PrintSink implements Sink<BridgeRecord> {
  private static final long serialVersionUID = 1;

  @Override
  public SinkWriter<BridgeRecord> createWriter(WriterInitContext context) {
    return new Writer();
  }

  private static final class Writer implements SinkWriter<BridgeRecord> {
    @Override
    public void write(BridgeRecord record, Context context) {
      PrintStream out = System.out;
      synchronized (out) {
        out.write(record.payload, 0, record.payload.length);
        out.write('\n');
      }
    }

    @Override
    public void flush(boolean endOfInput) throws IOException {
      System.out.flush();
      if (System.out.checkError()) {
        throw new IOException("standard output cannot be written");
      }
    }

    @Override
    public void close() {}
  }
}
