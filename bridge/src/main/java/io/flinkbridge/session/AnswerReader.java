package io.flinkbridge.session;

import io.flinkbridge.record.BridgeRecord;
import io.grpc.MethodDescriptor;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * Makes answers of what comes, in gRPC's thread: records are made while their bytes are in that
 * thread's cache, and the task's, which has Flink's chain to run, only hands them on.
 *
 * <p>A message is copied out of gRPC's buffers into one array, which is used again for the next:
 * nothing of an answer lies in it. What cannot be read becomes a {@link ProtocolException} in the
 * answer's place, for whoever asks for the answer.
 */
final class AnswerReader implements MethodDescriptor.Marshaller<Object> {
  private static final int KEPT_MAX = 1 << 20; // larger messages are rare
  private static final int SEQ = 1 << 3;
  private static final int NEXT_WAKEUP = 2 << 3;

  private final WireReader reader = new WireReader();
  private final ResultsReader results = new ResultsReader();
  private byte[] array = new byte[4 << 10];
  private int recordsBefore;

  @Override
  public Object parse(InputStream stream) {
    try {
      int size = stream.available(); // all of it: gRPC's streams know their length
      byte[] bytes = arrayOf(size);
      if (stream.readNBytes(bytes, 0, size) != size || stream.read() >= 0) {
        throw new ProtocolException("a message of another length than it says");
      }
      return read(bytes, size);
    } catch (ProtocolException e) {
      return e;
    } catch (IOException e) {
      return new ProtocolException(String.valueOf(e.getMessage()));
    }
  }

  @Override
  public InputStream stream(Object message) {
    throw new UnsupportedOperationException("sidecars send these");
  }

  private byte[] arrayOf(int size) {
    if (size > KEPT_MAX) {
      return new byte[size];
    }
    if (size > array.length) {
      array = new byte[Integer.highestOneBit(size - 1) << 1];
    }
    return array;
  }

  /** The answer in the first bytes of an array. */
  Answer read(byte[] bytes, int length) {
    long seq = 0;
    long nextWakeup = 0;
    Answer.Kind kind = null;
    int offset = 0;
    int size = 0;
    reader.over(bytes, 0, length);
    while (reader.next()) {
      int tag = reader.tag();
      Answer.Kind found = Answer.Kind.ofTag(tag);
      if (tag == SEQ) {
        seq = reader.varint();
      } else if (tag == NEXT_WAKEUP) {
        nextWakeup = reader.varint();
      } else if (found != null) {
        kind = found;
        size = reader.skipBytes();
        offset = reader.offset() - size;
      } else {
        reader.skip();
      }
    }
    if (kind == null) {
      throw new ProtocolException("a message without a kind");
    }
    if (kind == Answer.Kind.RESULTS) {
      List<BridgeRecord> records = records(bytes, offset, size);
      return new Answer(seq, nextWakeup, size, records, results.hasMore());
    }
    return new Answer(seq, nextWakeup, kind, Arrays.copyOfRange(bytes, offset, offset + size));
  }

  private List<BridgeRecord> records(byte[] bytes, int offset, int size) {
    List<BridgeRecord> records = new ArrayList<>(recordsBefore + 1); // as many as last time
    results.over(bytes, offset, size);
    for (BridgeRecord record = results.next(); record != null; record = results.next()) {
      records.add(record);
    }
    recordsBefore = records.size();
    return records;
  }
}
