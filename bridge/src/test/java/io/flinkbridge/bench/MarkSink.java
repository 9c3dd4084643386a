package io.flinkbridge.bench;

import java.io.IOException;
import java.io.Serializable;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;

/**
 * A sink that forgets its records, but writes down when they came: every 256th one's time and
 * number. One file for each subtask, {@code MARKS.SUBTASK}: first how many records and bytes, then
 * lines of nanoseconds and counts, then, where records have the time of their birth as timestamp,
 * how many took how long, in bins of 10 us: {@code late BIN COUNT}; those of the first two seconds
 * are left out. Nothing is written before the end.
 */
public final class MarkSink<T> implements Sink<T> {
  private static final long serialVersionUID = 1L;
  private static final int EVERY = 256;
  private static final int BINS = 500_000;
  private static final long WARM_UP = 2_000_000_000L;

  /** The bytes of a record. */
  public interface Size<T> extends Serializable {
    int of(T record);
  }

  private final String marks;
  private final Size<T> size;
  private final boolean isPaced;

  public MarkSink(String marks, Size<T> size, boolean isPaced) {
    this.marks = marks;
    this.size = size;
    this.isPaced = isPaced;
  }

  /** For lines of ASCII. */
  public static MarkSink<String> ofText(String marks, boolean isPaced) {
    return new MarkSink<>(marks, String::length, isPaced);
  }

  @Override
  public SinkWriter<T> createWriter(WriterInitContext context) {
    return new Writer(context.getTaskInfo().getIndexOfThisSubtask());
  }

  private final class Writer implements SinkWriter<T> {
    private final int subtask;
    private final int[] late = new int[isPaced ? BINS : 0];
    private long[] times = new long[1024];
    private long count;
    private long bytes;
    private long begin;
    private long last;

    Writer(int subtask) {
      this.subtask = subtask;
    }

    @Override
    public void write(T record, Context context) {
      bytes += size.of(record);
      if (isPaced) {
        long now = System.nanoTime();
        begin = begin == 0 ? now : begin;
        if (now - begin > WARM_UP) {
          late[(int) Math.min(Math.max((now - context.timestamp()) / 10_000, 0), BINS - 1)]++;
        }
      }
      if (count++ % EVERY == 0) {
        int mark = (int) (count / EVERY);
        times = mark == times.length ? Arrays.copyOf(times, 2 * mark) : times;
        times[mark] = System.nanoTime();
      }
    }

    /** The last of these is the end of the input. */
    @Override
    public void flush(boolean endOfInput) {
      last = System.nanoTime();
    }

    @Override
    public void close() {
      StringBuilder text = new StringBuilder().append(count).append(' ').append(bytes).append('\n');
      for (int mark = 0; (long) mark * EVERY < count; mark++) {
        text.append(times[mark]).append(' ').append((long) mark * EVERY + 1).append('\n');
      }
      text.append(last).append(' ').append(count).append('\n');
      for (int bin = 0; bin < late.length; bin++) {
        if (late[bin] > 0) {
          text.append("late ").append(bin).append(' ').append(late[bin]).append('\n');
        }
      }
      try {
        Files.writeString(Path.of(marks + "." + subtask), text);
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
  }
}
