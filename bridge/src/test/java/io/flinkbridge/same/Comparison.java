package io.flinkbridge.same;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.fasterxml.jackson.databind.JsonNode;
import io.flinkbridge.operator.BridgeOperatorFactory;
import io.flinkbridge.operator.SegmentSettings;
import io.flinkbridge.same.Player.Out;
import io.flinkbridge.same.Player.Outside;
import io.flinkbridge.same.Player.Subject;
import io.flinkbridge.testing.Segments;
import io.flinkbridge.testing.Sidecar;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.runtime.state.StateBackend;
import org.apache.flink.runtime.state.hashmap.HashMapStateBackend;
import org.apache.flink.state.rocksdb.EmbeddedRocksDBStateBackend;

/** One case over one sidecar: plays traces to both sides, and compares. */
final class Comparison implements AutoCloseable {
  private final Case subject;
  private final Sidecar sidecar;

  Comparison(Case subject) throws IOException {
    this.subject = subject;
    // Subtasks of the harness share one allocation and so one slot; those of a lost attempt may
    // still be there.
    this.sidecar =
        Sidecar.start(
            subject.pipeline(),
            1,
            "--sessions-per-slot",
            "32",
            "--message-max",
            "64KiB",
            "--state-memory",
            "64MiB");
  }

  /** Plays the trace of a seed to both. Fails with the seed and the first key that differs. */
  void compare(long seed, int length) throws Exception {
    Trace trace = Trace.of(seed, length, subject.inputs());
    String what = subject.name() + ", seed " + seed;
    try {
      Map<String, List<String>> expected =
          byKey(Player.play(Subject.of(subject.operator(), new HashMapStateBackend()), trace));
      Map<String, List<String>> actual = byKey(Player.play(bridge(backend(seed)), trace));
      assertEquals(expected.keySet(), actual.keySet(), what + ": keys");
      expected.forEach((key, outs) -> compareKey(what + ": key " + key, outs, actual.get(key)));
    } catch (AssertionError e) {
      throw e;
    } catch (Exception e) {
      throw new AssertionError(what + ": " + e + "\nThe sidecar's log:\n" + sidecar.log(), e);
    }
  }

  private static StateBackend backend(long seed) {
    return seed % 2 == 0 ? new HashMapStateBackend() : new EmbeddedRocksDBStateBackend();
  }

  private Subject<Integer> bridge(StateBackend backend) {
    SegmentSettings settings = Segments.of(sidecar, Case.SEGMENT);
    Outside outside =
        new Outside() {
          @Override
          public void kill() throws IOException {
            sidecar.killWorker(0);
          }

          @Override
          public void reload() throws IOException {
            sidecar.reload(subject.pipeline());
          }
        };
    return new Subject<>(
        () -> new BridgeOperatorFactory(settings),
        record -> record.keyHash,
        Types.INT,
        backend,
        outside);
  }

  private static Map<String, List<String>> byKey(List<Out> outs) {
    Map<String, List<String>> keys = new TreeMap<>();
    for (Out out : outs) {
      String line =
          canonical(NativeSteps.parse(out.payload()))
              + " @"
              + out.timestamp()
              + " after "
              + out.watermark();
      keys.computeIfAbsent(out.key(), key -> new ArrayList<>()).add(line);
    }
    return keys;
  }

  /**
   * Compares the outputs of one key up to the first that differs, and shows what came before it.
   */
  private static void compareKey(String what, List<String> expected, List<String> actual) {
    int same = 0;
    while (same < Math.min(expected.size(), actual.size())
        && expected.get(same).equals(actual.get(same))) {
      same++;
    }
    int from = Math.max(0, same - 3);
    int to = same + 3;
    assertEquals(
        lines(expected, from, to),
        lines(actual, from, to),
        what + ": from output " + from + " of " + expected.size() + " and " + actual.size());
  }

  private static String lines(List<String> outs, int from, int to) {
    return String.join("\n", outs.subList(Math.min(from, outs.size()), Math.min(to, outs.size())));
  }

  /** A value in one way of writing: numbers by what they are worth, whatever they look like. */
  private static String canonical(JsonNode node) {
    if (node.isNumber()) {
      return String.valueOf(node.asDouble());
    }
    if (node.isArray()) {
      List<String> parts = new ArrayList<>();
      node.forEach(part -> parts.add(canonical(part)));
      return parts.toString();
    }
    if (node.isObject()) {
      List<String> parts = new ArrayList<>();
      node.fields()
          .forEachRemaining(field -> parts.add(field.getKey() + ":" + canonical(field.getValue())));
      return parts.toString();
    }
    return node.toString();
  }

  @Override
  public void close() throws IOException {
    sidecar.close();
  }
}
