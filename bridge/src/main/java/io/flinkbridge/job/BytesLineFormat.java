package io.flinkbridge.job;

import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.BridgeRecordTypeInfo;
import java.io.IOException;
import java.util.Arrays;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.file.src.reader.StreamFormat;
import org.apache.flink.connector.file.src.util.CheckpointedPosition;
import org.apache.flink.core.fs.FSDataInputStream;

/**
 * Lines of a file as records, as bytes: without LF or CRLF; a last line without an end counts.
 * Flink's own reader makes texts of them, and after a failure reads a file from its beginning; this
 * one goes on at the byte where the checkpoint was.
 *
 * <p>A file can be split: a part begins behind the first line end at or after its start (but for
 * the first one), and reads the line that goes over its end.
 */
final class BytesLineFormat implements StreamFormat<BridgeRecord> {
  private static final long serialVersionUID = 1;

  /** The longest line that is taken. */
  static final int LINE_MAX = 64 << 20;

  private final String source;
  private final EventTime time; /* null: the time of reading */

  BytesLineFormat(String source, EventTime time) {
    this.source = source;
    this.time = time;
  }

  @Override
  public StreamFormat.Reader<BridgeRecord> createReader(
      Configuration config, FSDataInputStream stream, long fileLength, long splitEnd)
      throws IOException {
    long start = stream.getPos();
    Lines lines = new Lines(stream, start == 0 ? 0 : start - 1, end(fileLength, splitEnd));
    if (start > 0) {
      lines.skipLine();
    }
    return lines;
  }

  @Override
  public StreamFormat.Reader<BridgeRecord> restoreReader(
      Configuration config,
      FSDataInputStream stream,
      long restoredOffset,
      long fileLength,
      long splitEnd)
      throws IOException {
    return new Lines(stream, restoredOffset, end(fileLength, splitEnd));
  }

  /**
   * Where a part ends: the last one at the end of the file, whatever its length says (it is not
   * that of a compressed file).
   */
  private static long end(long fileLength, long splitEnd) {
    return splitEnd >= fileLength ? Long.MAX_VALUE : splitEnd;
  }

  @Override
  public boolean isSplittable() {
    return true;
  }

  @Override
  public TypeInformation<BridgeRecord> getProducedType() {
    return BridgeRecordTypeInfo.INSTANCE;
  }

  /** The lines of one part of a file. */
  private final class Lines implements StreamFormat.Reader<BridgeRecord> {
    private final FSDataInputStream stream;
    private final long end; /* lines that start here or later are the next part's */
    private byte[] buffer = new byte[64 << 10];
    private int from;
    private int to;
    private long position; /* in the file, of buffer[from] */
    private boolean atEnd;

    Lines(FSDataInputStream stream, long start, long end) throws IOException {
      this.stream = stream;
      this.end = end;
      this.position = start;
      if (stream.getPos() != start) {
        stream.seek(start);
      }
    }

    /** Takes what is left of the line that another part reads. */
    private void skipLine() throws IOException {
      int length = lineLength();
      if (length >= 0) {
        consume(length);
      }
    }

    @Override
    public BridgeRecord read() throws IOException {
      if (position >= end) {
        return null;
      }
      int length = lineLength();
      if (length < 0) {
        return null;
      }
      int size = length;
      if (size > 0 && buffer[from + size - 1] == '\n') {
        size--;
      }
      if (size > 0 && buffer[from + size - 1] == '\r') {
        size--;
      }
      byte[] payload = Arrays.copyOfRange(buffer, from, from + size);
      consume(length);
      return BridgeRecord.of(payload, time == null ? System.currentTimeMillis() : time.of(payload));
    }

    private void consume(int length) {
      from += length;
      position += length;
    }

    /** The length of the line at hand with its end; -1 when there is none any more. */
    private int lineLength() throws IOException {
      int scanned = from;
      while (true) {
        for (; scanned < to; scanned++) {
          if (buffer[scanned] == '\n') {
            return scanned + 1 - from;
          }
        }
        if (atEnd) {
          return from == to ? -1 : to - from;
        }
        scanned -= from;
        fill();
        scanned += from;
      }
    }

    /** Reads more behind what there is. */
    private void fill() throws IOException {
      if (from > 0) {
        System.arraycopy(buffer, from, buffer, 0, to - from);
        to -= from;
        from = 0;
      }
      if (to == buffer.length) {
        if (to >= LINE_MAX) {
          throw new IOException(
              "source \""
                  + source
                  + "\": the line at byte "
                  + position
                  + " is longer than "
                  + (LINE_MAX >> 20)
                  + " MiB");
        }
        buffer = Arrays.copyOf(buffer, Math.min(LINE_MAX, buffer.length * 2));
      }
      int got = stream.read(buffer, to, buffer.length - to);
      atEnd = got < 0;
      to += Math.max(got, 0);
    }

    @Override
    public CheckpointedPosition getCheckpointedPosition() {
      return new CheckpointedPosition(position, 0);
    }

    @Override
    public void close() throws IOException {
      stream.close();
    }
  }
}
