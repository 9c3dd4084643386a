package io.flinkbridge;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.flinkbridge.testing.Programs;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The command line: what is told, what is refused, and with which exit code. */
class MainTest {
  private static final Path QUICKSTART =
      Programs.ROOT.resolve("tests/corpus/pipeline/good/quickstart.descriptor");

  @TempDir Path folder;
  private ByteArrayOutputStream out;
  private ByteArrayOutputStream err;

  @BeforeEach
  void streams() {
    out = new ByteArrayOutputStream();
    err = new ByteArrayOutputStream();
  }

  private int run(String... arguments) throws Exception {
    try (PrintStream outs = new PrintStream(out, true, StandardCharsets.UTF_8);
        PrintStream errs = new PrintStream(err, true, StandardCharsets.UTF_8)) {
      return Main.run(outs, errs, arguments);
    }
  }

  private String file(String name, String text) throws Exception {
    return Files.writeString(folder.resolve(name), text).toString();
  }

  private void assertErr(String words) {
    assertTrue(
        err.toString(StandardCharsets.UTF_8).contains(words), err.toString(StandardCharsets.UTF_8));
  }

  private void assertOut(String words) {
    assertTrue(
        out.toString(StandardCharsets.UTF_8).contains(words), out.toString(StandardCharsets.UTF_8));
  }

  @Test
  void helpHasExamples() throws Exception {
    assertEquals(0, run("--help"));
    assertOut("flink run flink-bridge.jar --descriptor");
    assertOut("--check");
  }

  @Test
  void whatCannotBeUnderstoodEndsWithTwo() throws Exception {
    String[][] misused = {
      {},
      {"--descriptor"},
      {"--descriptr", "x"},
      {"x"},
      {"--descriptor=x", "--json"},
      {"--descriptor=x", "--explain=yes"},
      {"--descriptor=x", "--explain", "--check"},
    };
    for (String[] arguments : misused) {
      assertEquals(2, run(arguments), String.join(" ", arguments));
      assertErr("Try --help.");
    }
  }

  @Test
  void filesThatCannotBeUsedEndWithOne() throws Exception {
    assertEquals(1, run("--descriptor", folder.resolve("none").toString()));
    assertErr("none: error: cannot be read");
    String broken =
        file(
            "broken.yaml",
            Files.readString(QUICKSTART).replace("kind: \"filter\"", "kind: \"filtre\""));
    assertEquals(1, run("--descriptor", broken));
    assertErr("broken.yaml:");
    assertErr("did you mean \"filter\"?");
    String config = file("config.yaml", "flink:\n  checkpoint_intervall: 1s\n");
    assertEquals(1, run("--descriptor", QUICKSTART.toString(), "--config", config));
    assertErr("config.yaml:2:3: error: unknown key \"checkpoint_intervall\"");
    assertErr("did you mean \"checkpoint_interval\"?");
  }

  @Test
  void explainTellsEverything() throws Exception {
    String config =
        file(
            "config.yaml",
            "flink: { delivery: at_least_once, checkpoint_interval: 3s, sidecar: \"h:1\" }");
    assertEquals(0, run("--descriptor", QUICKSTART.toString(), "--config", config, "--explain"));
    assertOut("pipeline quickstart, topology 9e11");
    assertOut("a checkpoint every 3s, for which no input waits");
    assertOut("uid source-");
    assertOut("uid segment-");
    assertOut("uid sink-");
    assertOut("sidecar                h:1");
  }

  @Test
  void explainAsJsonIsJson() throws Exception {
    assertEquals(
        0, run("--descriptor", QUICKSTART.toString(), "--explain", "--json", "--sidecar", "h:2"));
    JsonNode plan = new ObjectMapper().readTree(out.toString(StandardCharsets.UTF_8));
    assertEquals("quickstart", plan.get("pipeline").asText());
    assertEquals(5, plan.get("segments").size());
    assertEquals("h:2", plan.get("settings").get("sidecar").asText());
    assertEquals("exactly_once", plan.get("settings").get("delivery").asText());
  }

  @Test
  void checkSubmitsNothing() throws Exception {
    assertEquals(0, run("--descriptor", QUICKSTART.toString(), "--check"));
    assertOut("pipeline \"quickstart\" is fine");
  }

  @Test
  void checkFindsWhatFlinkCannotDo() throws Exception {
    String pipeline =
        file(
            "p.yaml",
            "name: p\nsources: { in: { kind: file, path: \"-\" } }\nsinks: { out: { kind: discard } }\n");
    String descriptor =
        file("d.yaml", Programs.compile(Path.of(pipeline), null, java.util.Map.of()));
    assertEquals(1, run("--descriptor", descriptor, "--check"));
    assertErr("Flink cannot read standard input");
  }
}
