package io.flinkbridge.record;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.flink.api.common.typeinfo.TypeInfo;
import org.jspecify.annotations.Nullable;

/**
 * A record of a pipeline as it flows between Flink's operators. Immutable, its arrays included:
 * nobody may write into them, which is why it is never copied.
 */
@TypeInfo(BridgeRecordTypeInfo.Factory.class)
public final class BridgeRecord {
  /** The timestamp of a record without event time. */
  public static final long NO_TIMESTAMP = Long.MIN_VALUE;

  public final byte[] payload;
  public final Headers headers;

  /** Event time in ms since the epoch, or {@link #NO_TIMESTAMP}. */
  public final long timestamp;

  /** The key, or null when the record has none; an empty key is a key. */
  public final byte @Nullable [] key;

  /** What Flink keys its streams by: the low 32 bits of XXH3-64 of the key; 0 without a key. */
  public final int keyHash;

  /** Which of its next segment's inputs it comes in by. */
  public final int input;

  /** Which of its last segment's routes it left by. */
  public final int route;

  /** All of a record. {@code keyHash} must be that of the key: see {@link KeyHash}. */
  public BridgeRecord(
      byte[] payload,
      Headers headers,
      long timestamp,
      byte @Nullable [] key,
      int keyHash,
      int input,
      int route) {
    this.payload = payload;
    this.headers = headers;
    this.timestamp = timestamp;
    this.key = key;
    this.keyHash = keyHash;
    this.input = input;
    this.route = route;
  }

  /** A record with a payload and nothing else. */
  public static BridgeRecord of(byte[] payload) {
    return of(payload, NO_TIMESTAMP);
  }

  /** A record with a payload and event time. */
  public static BridgeRecord of(byte[] payload, long timestamp) {
    return new BridgeRecord(payload, Headers.EMPTY, timestamp, null, 0, 0, 0);
  }

  /** A record with a text as payload. */
  public static BridgeRecord of(String payload) {
    return of(payload.getBytes(StandardCharsets.UTF_8));
  }

  /** The same with headers in place of those that it has. */
  public BridgeRecord withHeaders(Headers other) {
    return new BridgeRecord(payload, other, timestamp, key, keyHash, input, route);
  }

  /** The same with event time. */
  public BridgeRecord withTimestamp(long other) {
    return new BridgeRecord(payload, headers, other, key, keyHash, input, route);
  }

  /** The same with a key, or without one. */
  public BridgeRecord withKey(byte @Nullable [] other) {
    return new BridgeRecord(
        payload, headers, timestamp, other, other == null ? 0 : KeyHash.of(other), input, route);
  }

  /** The same at another input of its next segment. */
  public BridgeRecord withInput(int other) {
    return other == input
        ? this
        : new BridgeRecord(payload, headers, timestamp, key, keyHash, other, route);
  }

  /** The payload as text. */
  public String text() {
    return new String(payload, StandardCharsets.UTF_8);
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof BridgeRecord record
        && Arrays.equals(payload, record.payload)
        && headers.equals(record.headers)
        && timestamp == record.timestamp
        && Arrays.equals(key, record.key)
        && keyHash == record.keyHash
        && input == record.input
        && route == record.route;
  }

  @Override
  public int hashCode() {
    return Arrays.hashCode(payload) * 31 + Long.hashCode(timestamp);
  }

  @Override
  public String toString() {
    StringBuilder text = new StringBuilder("BridgeRecord{").append(text());
    if (timestamp != NO_TIMESTAMP) {
      text.append(" @").append(timestamp);
    }
    if (key != null) {
      text.append(" key ").append(new String(key, StandardCharsets.UTF_8));
    }
    if (!headers.isEmpty()) {
      text.append(' ').append(headers);
    }
    return text.append(" input ")
        .append(input)
        .append(" route ")
        .append(route)
        .append('}')
        .toString();
  }
}
