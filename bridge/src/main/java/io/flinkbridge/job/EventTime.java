package io.flinkbridge.job;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.io.Serializable;
import java.nio.charset.StandardCharsets;
import java.util.regex.Pattern;

/**
 * The event time of a record as its source reads it: what a jq program makes of the payload. A
 * plain path of fields, which is what nearly every program is, is looked up while the payload is
 * tokenised, and reads no further than to there.
 */
final class EventTime implements Serializable {
  private static final long serialVersionUID = 1;
  private static final Pattern PATH = Pattern.compile("(\\.[A-Za-z_][A-Za-z0-9_]*)+");
  private static final int SHOWN = 200;

  private final String source;
  private final String[] path; /* null: the program is no path */
  private final JqProgram program;

  /** That of a source, whose timestamp is said by a program. */
  EventTime(String source, String program) {
    this.source = source;
    this.program = new JqProgram(program);
    this.path = PATH.matcher(program).matches() ? program.substring(1).split("\\.") : null;
  }

  /** The event time of a payload in ms. */
  long of(byte[] payload) throws IOException {
    try {
      return path == null ? byProgram(payload) : byPath(payload);
    } catch (IOException | RuntimeException e) {
      String text = new String(payload, 0, Math.min(payload.length, SHOWN), StandardCharsets.UTF_8);
      throw new IOException(
          "source \"" + source + "\": no timestamp: " + e.getMessage() + "\n  record: " + text, e);
    }
  }

  private long byProgram(byte[] payload) throws IOException {
    JsonNode value = program.apply(payload);
    if (!value.isNumber()) {
      throw noNumber(value.toString());
    }
    return floor(
        value.doubleValue(),
        value.isIntegralNumber() && value.canConvertToLong() ? value.longValue() : 0);
  }

  private static final JsonFactory TOKENS = new JsonFactory();

  private long byPath(byte[] payload) throws IOException {
    try (JsonParser parser = TOKENS.createParser(payload)) {
      parser.nextToken();
      for (String field : path) {
        if (!enter(parser, field)) {
          throw noNumber("null");
        }
      }
      if (!parser.currentToken().isNumeric()) {
        throw noNumber(parser.currentToken().isScalarValue() ? parser.getText() : "a structure");
      }
      boolean whole =
          parser.currentToken() == JsonToken.VALUE_NUMBER_INT
              && parser.getNumberType() != JsonParser.NumberType.BIG_INTEGER;
      return floor(parser.getDoubleValue(), whole ? parser.getLongValue() : 0);
    }
  }

  /** Goes to the value of a field of the object at hand; false when there is none. */
  private static boolean enter(JsonParser parser, String field) throws IOException {
    if (parser.currentToken() != JsonToken.START_OBJECT) {
      throw new IOException("there is no object to take ." + field + " of");
    }
    while (parser.nextToken() == JsonToken.FIELD_NAME) {
      boolean found = parser.currentName().equals(field);
      parser.nextToken();
      if (found) {
        return true;
      }
      parser.skipChildren();
    }
    return false;
  }

  /** A number as whole milliseconds; beyond what a double holds exactly it has to be whole. */
  private static long floor(double value, long whole) throws IOException {
    if (Double.isNaN(value) || Math.abs(value) >= 9.2e18) {
      throw new IOException(value + " is no time in ms");
    }
    return whole != 0 ? whole : (long) Math.floor(value);
  }

  private static IOException noNumber(String found) {
    return new IOException("the timestamp program must yield milliseconds, a number, not " + found);
  }
}
