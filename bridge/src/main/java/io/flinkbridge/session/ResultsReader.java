package io.flinkbridge.session;

import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.Headers;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * Reads the records of a Results, one by one. A record gets arrays of its own, so it may outlive
 * the message.
 */
final class ResultsReader {
  private static final byte[] NOTHING = new byte[0];
  private static final int RECORD = 1 << 3 | WireReader.BYTES;
  private static final int MORE = 2 << 3;
  private static final int PAYLOAD = 1 << 3 | WireReader.BYTES;
  private static final int HEADERS = 2 << 3 | WireReader.BYTES;
  private static final int TIMESTAMP = 3 << 3;
  private static final int KEY = 4 << 3 | WireReader.BYTES;
  private static final int KEY_HASH = 5 << 3 | WireReader.FIXED32;
  private static final int ROUTE = 8 << 3;

  private final WireReader results = new WireReader();
  private final WireReader record = new WireReader();
  private byte[] array = NOTHING;
  private boolean hasMore;

  /** Begins with a Results in a part of an array. */
  void over(byte[] bytes, int offset, int size) {
    array = bytes;
    results.over(array, offset, size);
    hasMore = false;
  }

  /** The next record, or null at the end. */
  @Nullable BridgeRecord next() {
    while (results.next()) {
      int tag = results.tag();
      if (tag == RECORD) {
        int size = results.skipBytes();
        return read(results.offset() - size, size);
      } else if (tag == MORE) {
        hasMore = results.varint() != 0;
      } else {
        results.skip();
      }
    }
    return null;
  }

  /** At the end: whether further Results of this seq follow. */
  boolean hasMore() {
    return hasMore;
  }

  private BridgeRecord read(int offset, int size) {
    byte[] payload = NOTHING;
    Headers headers = Headers.EMPTY;
    long timestamp = BridgeRecord.NO_TIMESTAMP;
    byte[] key = null;
    int keyHash = 0;
    int route = 0;
    record.over(array, offset, size);
    while (record.next()) {
      switch (record.tag()) {
        case PAYLOAD -> payload = record.copyBytes();
        case HEADERS -> headers = append(headers);
        case TIMESTAMP -> timestamp = record.varint();
        case KEY -> key = record.copyBytes();
        case KEY_HASH -> keyHash = record.fixed32();
        case ROUTE -> route = (int) record.varint();
        default -> record.skip();
      }
    }
    return new BridgeRecord(payload, headers, timestamp, key, keyHash, 0, route);
  }

  /**
   * Takes the header field at hand, and those right behind it: as a rule all of them, in one copy.
   */
  private Headers append(Headers before) {
    int begin = record.tagOffset();
    record.skipBytes();
    int end = record.offset();
    while (end < record.end() && array[end] == HEADERS) {
      record.next();
      record.skipBytes();
      end = record.offset();
    }
    byte[] old = before.wire();
    byte[] wire = Arrays.copyOf(old, old.length + end - begin);
    System.arraycopy(array, begin, wire, old.length, end - begin);
    return Headers.ofWire(wire);
  }
}
