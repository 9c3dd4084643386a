package io.flinkbridge.session;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.MessageLite;
import com.google.protobuf.Parser;
import io.flinkbridge.record.BridgeRecord;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** One message from the worker: what it answers, its kind, and its content. */
public final class Answer {
  /** What an answer can be; the numbers are the fields of FromWorker. */
  public enum Kind {
    OPEN_ACK(3),
    RESTORE_ACK(4),
    RESULTS(6),
    STATE_DELTA(9),
    BARRIER_ACK(10),
    END_ACK(11),
    ERROR(13);

    private static final Kind[] BY_FIELD = new Kind[14];

    static {
      for (Kind kind : values()) {
        BY_FIELD[kind.field] = kind;
      }
    }

    private final int field;

    Kind(int field) {
      this.field = field;
    }

    /** The kind that a field of the message is, if it is one. */
    static @Nullable Kind ofTag(int tag) {
      int field = tag >>> 3;
      return (tag & 7) == WireReader.BYTES && field < BY_FIELD.length ? BY_FIELD[field] : null;
    }
  }

  private static final byte[] NOTHING = new byte[0];

  private final long seq;
  private final long nextWakeup;
  private final Kind kind;
  private final int size;
  private final byte[] content;
  private final List<BridgeRecord> records;
  private final boolean hasMore;

  /** A Results of so many bytes. */
  Answer(long seq, long nextWakeup, int size, List<BridgeRecord> records, boolean hasMore) {
    this.seq = seq;
    this.nextWakeup = nextWakeup;
    this.kind = Kind.RESULTS;
    this.size = size;
    this.content = NOTHING;
    this.records = records;
    this.hasMore = hasMore;
  }

  /** Anything else, as its bytes. */
  Answer(long seq, long nextWakeup, Kind kind, byte[] content) {
    this.seq = seq;
    this.nextWakeup = nextWakeup;
    this.kind = kind;
    this.size = content.length;
    this.content = content;
    this.records = List.of();
    this.hasMore = false;
  }

  /** Of the message that this answers. */
  public long seq() {
    return seq;
  }

  /** With the last answer to a seq: the processing time of the next tick wanted; 0: none. */
  public long nextWakeup() {
    return nextWakeup;
  }

  public Kind kind() {
    return kind;
  }

  /** How many bytes its content took. */
  public int size() {
    return size;
  }

  /** The records of Results. They have arrays of their own, so they may outlive the answer. */
  public List<BridgeRecord> records() {
    return records;
  }

  /** Whether further Results of this seq follow. */
  public boolean hasMore() {
    return hasMore;
  }

  /** The bytes of what is not Results. */
  byte[] content() {
    return content;
  }

  /** The content as a generated class has it; for what comes seldom. */
  public <T extends MessageLite> T parse(Parser<T> parser) {
    try {
      return parser.parseFrom(content);
    } catch (InvalidProtocolBufferException e) {
      throw new ProtocolException(kind + ": " + e.getMessage());
    }
  }
}
