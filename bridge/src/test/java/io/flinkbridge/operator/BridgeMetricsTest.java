package io.flinkbridge.operator;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.flinkbridge.testing.Programs;
import java.nio.file.Files;
import java.time.Duration;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.Gauge;
import org.apache.flink.metrics.Histogram;
import org.apache.flink.metrics.MetricGroup;
import org.apache.flink.metrics.groups.UnregisteredMetricsGroup;
import org.junit.jupiter.api.Test;

/** The metrics that there are, and those that docs/flink-operator.md lists. */
final class BridgeMetricsTest {
  private static final Pattern ROW =
      Pattern.compile("\\| `(\\w+)` \\| (counter|gauge|histogram) \\| [A-Z0-9].*\\. \\|");

  /** Keeps names and kinds of what is registered. */
  private static final class Recorder extends UnregisteredMetricsGroup {
    private final Map<String, String> seen = new TreeMap<>();

    @Override
    public MetricGroup addGroup(String name) {
      assertEquals("bridge", name);
      return this;
    }

    @Override
    public Counter counter(String name) {
      seen.put(name, "counter");
      return super.counter(name);
    }

    @Override
    public <T, G extends Gauge<T>> G gauge(String name, G gauge) {
      seen.put(name, "gauge");
      return super.gauge(name, gauge);
    }

    @Override
    public <H extends Histogram> H histogram(String name, H histogram) {
      seen.put(name, "histogram");
      return super.histogram(name, histogram);
    }
  }

  @Test
  void allMetricsAreDocumented() throws Exception {
    Recorder recorder = new Recorder();
    Duration time = Duration.ofSeconds(1);
    new BridgeMetrics(recorder)
        .registerGauges(
            new SessionOpener("name", "unix:/s", time, time), new InFlightWindow(time, 1));
    Map<String, String> documented = new TreeMap<>();
    for (String line : Files.readAllLines(Programs.ROOT.resolve("docs/flink-operator.md"))) {
      Matcher row = ROW.matcher(line);
      if (row.matches()) {
        documented.put(row.group(1), row.group(2));
      }
    }
    assertEquals(recorder.seen, documented);
  }
}
