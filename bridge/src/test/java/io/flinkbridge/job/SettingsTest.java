package io.flinkbridge.job;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.descriptor.InvalidFileException;
import io.flinkbridge.testing.Programs;
import java.time.Duration;
import java.util.Map;
import org.apache.flink.configuration.Configuration;
import org.junit.jupiter.api.Test;

/** The section flink of a deployment: read, refused, and put into Flink's words. */
class SettingsTest {
  private static Map<String, String> flink(String text) throws Exception {
    Descriptor descriptor =
        Descriptor.read(Programs.ROOT.resolve("tests/corpus/pipeline/good/quickstart.descriptor"));
    Configuration configuration =
        EnvironmentSettings.configuration(descriptor, FlinkSettings.parse("c", text, name -> null));
    return configuration.toMap();
  }

  private static String refused(String text) {
    return assertThrows(
            InvalidFileException.class, () -> FlinkSettings.parse("c.yaml", text, name -> null))
        .getMessage();
  }

  @Test
  void withoutAWordItIsExactlyOnce() throws Exception {
    Map<String, String> flink = flink("sidecar: { slots: 4 }\nsteps: {}\n");
    assertEquals("EXACTLY_ONCE", flink.get("execution.checkpointing.mode"));
    assertEquals("10 s", flink.get("execution.checkpointing.interval"));
    assertEquals("hashmap", flink.get("state.backend.type"));
    assertEquals("exponential-delay", flink.get("restart-strategy.type"));
    assertEquals("STREAMING", flink.get("execution.runtime-mode"));
    assertEquals("quickstart", flink.get("pipeline.name"));
    assertEquals(
        "RETAIN_ON_CANCELLATION",
        flink.get("execution.checkpointing.externalized-checkpoint-retention"));
    assertFalse(flink.containsKey("execution.checkpointing.dir"));
  }

  @Test
  void everythingFollowsFromTheDelivery() throws Exception {
    assertEquals(
        "AT_LEAST_ONCE",
        flink("flink: { delivery: at_least_once }").get("execution.checkpointing.mode"));
    Map<String, String> most = flink("flink: { delivery: at_most_once }");
    assertFalse(most.containsKey("execution.checkpointing.interval"));
    assertEquals("disable", most.get("restart-strategy.type"));
  }

  @Test
  void settingsAreFlinks() throws Exception {
    Map<String, String> flink =
        flink(
            """
            flink:
              checkpoint_interval: 2s
              checkpoint_storage: /checkpoints
              checkpoint_retention: delete
              tolerable_failures: 3
              unaligned: true
              state_backend: rocksdb
              restart: fixed_delay
              restart_attempts: 7
              buffer_timeout: 0
              properties: { taskmanager.numberOfTaskSlots: 9 }
            """);
    assertEquals("2 s", flink.get("execution.checkpointing.interval"));
    assertEquals("file:/checkpoints", flink.get("execution.checkpointing.dir"));
    assertEquals("filesystem", flink.get("execution.checkpointing.storage"));
    assertEquals(
        "DELETE_ON_CANCELLATION",
        flink.get("execution.checkpointing.externalized-checkpoint-retention"));
    assertEquals("3", flink.get("execution.checkpointing.tolerable-failed-checkpoints"));
    assertEquals("true", flink.get("execution.checkpointing.unaligned.enabled"));
    assertEquals("true", flink.get("execution.checkpointing.incremental"));
    assertEquals("rocksdb", flink.get("state.backend.type"));
    assertEquals("7", flink.get("restart-strategy.fixed-delay.attempts"));
    assertEquals("9", flink.get("taskmanager.numberOfTaskSlots"));
  }

  /** One setting has one place. */
  @Test
  void propertiesCannotSayWhatASettingSays() {
    UnfitException twice =
        assertThrows(
            UnfitException.class,
            () -> flink("flink: { properties: { execution.checkpointing.interval: 1s } }"));
    assertTrue(twice.getMessage().contains("execution.checkpointing.interval"), twice.getMessage());
  }

  @Test
  void variablesComeFromTheEnvironment() throws Exception {
    String text = "flink: { sidecar: \"${HOST}:${PORT:-7000}\", properties: { a.b: \"$$x $y\" } }";
    FlinkSettings settings = FlinkSettings.parse("c", text, Map.of("HOST", "h")::get);
    assertEquals("h:7000", settings.sidecar());
    assertEquals("$x $y", settings.options().map("properties").get("a.b"));
    assertEquals(Duration.ofMinutes(1), settings.duration("sidecar_wait"));
    assertTrue(
        refused(text).contains("c.yaml:1:19: error: the environment has no variable HOST"),
        refused(text));
  }

  @Test
  void whatIsWrongHasItsPlace() {
    String text =
        "flink:\n  delivery: at_most_once\n  unaligned: true\n  checkpoint_timout: 1s\n  batch_bytes: 2MiB\nflnk: 1\n";
    String said = refused(text);
    assertTrue(said.contains("c.yaml:6:1: error: unknown key \"flnk\""), said);
    assertTrue(
        said.contains("c.yaml:3:3: error: \"unaligned\" of the section \"flink\" has no meaning"),
        said);
    assertTrue(said.contains("c.yaml:4:3: error: unknown key \"checkpoint_timout\""), said);
    assertTrue(said.contains("c.yaml:5:16: error: \"batch_bytes\""), said);
    assertTrue(refused("flink: 1").contains("c.yaml:1:8"), refused("flink: 1"));
    assertTrue(refused("- a").contains("a map of sections"), refused("- a"));
  }
}
