package io.flinkbridge.session;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.MessageLite;
import com.google.protobuf.Parser;

/**
 * One message from the worker, opened as far as its envelope: what it answers, its kind, and where
 * its content lies. Reused from message to message.
 */
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
  }

  private static final int SEQ = 1 << 3;
  private static final int NEXT_WAKEUP = 2 << 3;

  private final WireReader reader = new WireReader();
  private byte[] message = new byte[0];
  private long seq;
  private long nextWakeup;
  private Kind kind = Kind.ERROR;
  private int offset;
  private int size;

  /** Opens the next message. */
  Answer open(byte[] bytes) {
    message = bytes;
    seq = 0;
    nextWakeup = 0;
    size = -1;
    reader.over(bytes, 0, bytes.length);
    while (reader.next()) {
      int tag = reader.tag();
      if (tag == SEQ) {
        seq = reader.varint();
      } else if (tag == NEXT_WAKEUP) {
        nextWakeup = reader.varint();
      } else if ((tag & 7) == WireReader.BYTES
          && tag >>> 3 < Kind.BY_FIELD.length
          && Kind.BY_FIELD[tag >>> 3] != null) {
        kind = Kind.BY_FIELD[tag >>> 3];
        size = reader.skipBytes();
        offset = reader.offset() - size;
      } else {
        reader.skip();
      }
    }
    if (size < 0) {
      throw new ProtocolException("a message without a kind");
    }
    return this;
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

  /** The array that the content lies in. */
  public byte[] array() {
    return message;
  }

  public int offset() {
    return offset;
  }

  public int size() {
    return size;
  }

  /** The content as a generated class has it; for what comes seldom. */
  public <T extends MessageLite> T parse(Parser<T> parser) {
    try {
      return parser.parseFrom(message, offset, size);
    } catch (InvalidProtocolBufferException e) {
      throw new ProtocolException(kind + ": " + e.getMessage());
    }
  }
}
