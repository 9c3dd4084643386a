package io.flinkbridge.job;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.Serializable;
import java.nio.charset.StandardCharsets;
import net.thisptr.jackson.jq.BuiltinFunctionLoader;
import net.thisptr.jackson.jq.JsonQuery;
import net.thisptr.jackson.jq.Scope;
import net.thisptr.jackson.jq.Versions;
import net.thisptr.jackson.jq.exception.JsonQueryException;

/**
 * A jq program that has to run before a record is in a segment, or between two, and so in the JVM:
 * event time, made-up records, a partition. Compiled where it is used; one output for each input.
 */
final class JqProgram implements Serializable {
  private static final long serialVersionUID = 1;
  static final ObjectMapper JSON = new ObjectMapper();

  private final String program;
  private transient JsonQuery query;
  private transient Scope scope;

  JqProgram(String program) {
    this.program = program;
  }

  /** What is wrong with a program, or null. */
  static String problem(String program) {
    try {
      JsonQuery.compile(program, Versions.JQ_1_7);
      return null;
    } catch (JsonQueryException e) {
      return e.getMessage();
    }
  }

  /** What it makes of a payload that is JSON. */
  JsonNode apply(byte[] payload) throws IOException {
    JsonNode value = JSON.readTree(payload);
    if (value == null || value.isMissingNode()) {
      throw new IOException("the payload is empty");
    }
    return apply(value);
  }

  /** What it makes of a value. */
  JsonNode apply(JsonNode value) throws IOException {
    if (query == null) {
      scope = Scope.newEmptyScope();
      BuiltinFunctionLoader.getInstance().loadFunctions(Versions.JQ_1_7, scope);
      query = JsonQuery.compile(program, Versions.JQ_1_7);
    }
    JsonNode[] output = new JsonNode[1];
    int[] count = new int[1];
    query.apply(
        scope,
        value,
        result -> {
          output[0] = result;
          count[0]++;
        });
    if (count[0] != 1) {
      throw new IOException(
          "the program `" + program + "` yields " + count[0] + " values, not one");
    }
    return output[0];
  }

  /** A value as the bytes of a key or payload: a text's own, or the shortest JSON. */
  static byte[] bytes(JsonNode value) throws IOException {
    return value.isTextual()
        ? value.textValue().getBytes(StandardCharsets.UTF_8)
        : JSON.writeValueAsBytes(value);
  }

  @Override
  public String toString() {
    return program;
  }
}
