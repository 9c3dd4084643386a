package io.flinkbridge.descriptor;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.flinkbridge.testing.Programs;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.regex.MatchResult;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Java and C accept and refuse the same descriptors: those of the corpus, and many damaged ones.
 */
class DescriptorCorpusTest {
  private static final Path CORPUS = Programs.ROOT.resolve("tests/corpus/pipeline");
  private static final int MUTANTS = Integer.getInteger("bridge.mutants", 400);
  private static final Pattern OTHER_HASH =
      Pattern.compile(
          "the topology hash is not that of this file.*?expected:? ([0-9a-f]{32})", Pattern.DOTALL);

  /** What scalars are replaced by. */
  private static final List<String> VALUES =
      List.of(
          "",
          "~",
          "null",
          "\"\"",
          "0",
          "1",
          "2",
          "63",
          "64",
          "100",
          "-1",
          "32768",
          "32769",
          "1e3",
          "true",
          "no",
          "\"0ms\"",
          "\"1ms\"",
          "\"999us\"",
          "\"1000us\"",
          "\"5 s\"",
          "\"87600h\"",
          "\"1x\"",
          "64KiB",
          "64KB",
          "18446744073709551616",
          "9223372036854775807",
          "9223372036854775808",
          "[]",
          "{}",
          "[a, a]",
          "[a, b]",
          "{a: b}",
          "{a: \"\"}",
          "\"default\"",
          "&a b",
          "*a",
          "!x y",
          "\"\\0\"",
          "\"a\\tb\"",
          "'a b'",
          "\"\\ud800\"",
          "\"\\u00e9\"",
          "text",
          "\"a..b\"",
          "\"a.b\"",
          "\"9a\"",
          "broker",
          "\"[::1]:9092\"",
          "\"a:0\"",
          "\"SASL://b:65535\"",
          "\"b:65536\"",
          "json",
          "bytes",
          "fail",
          "dead_letter",
          "forward",
          "rebalance",
          "hash",
          "\"count\"",
          "\"sum(.x)\"",
          "\"sum()\"",
          "header.x",
          "timestamp",
          "|\n  text");

  static Stream<Path> descriptors() throws IOException {
    try (Stream<Path> files = Files.list(CORPUS.resolve("good"))) {
      return files
          .filter(path -> path.toString().endsWith(".descriptor"))
          .sorted()
          .toList()
          .stream();
    }
  }

  static Stream<Path> pipelines() throws IOException {
    try (Stream<Path> files = Files.list(CORPUS.resolve("good"))) {
      /* The configuration of one has a section that only the compiler alone lets pass. */
      return files
          .filter(path -> path.toString().endsWith(".yaml") && !path.endsWith("overlay.yaml"))
          .sorted()
          .toList()
          .stream();
    }
  }

  @ParameterizedTest
  @MethodSource("pipelines")
  void whatCompilesCanBeRead(Path pipeline) throws Exception {
    Path config = Path.of(pipeline.toString().replace(".yaml", ".config"));
    String text =
        Programs.compile(
            pipeline,
            Files.exists(config) ? config : null,
            Map.of("EVENTS", "e", "OUT", "o", "CORPUS_DIRECTORY", "c"));
    Descriptor descriptor = Descriptor.parse("compiled", text);
    assertTrue(descriptor.segments().size() > 0);
    for (Segment segment : descriptor.segments()) {
      assertEquals(segment, descriptor.segment(segment.name()));
    }
  }

  @ParameterizedTest
  @MethodSource("descriptors")
  void theCorpusIsAccepted(Path path) throws Exception {
    Descriptor descriptor = Descriptor.read(path);
    assertTrue(descriptor.topologyHash().matches("[0-9a-f]{32}"));
  }

  @Test
  void whatWasFoundIsRefused() throws Exception {
    try (Stream<Path> found = Files.list(CORPUS.resolve("found"))) {
      for (Path path : found.toList()) {
        InvalidFileException refused =
            assertThrows(InvalidFileException.class, () -> Descriptor.read(path));
        assertTrue(refused.getMessage().contains(path + ":"), refused.getMessage());
      }
    }
  }

  /**
   * Damages descriptors at random; both sides must say the same of each, and want the same hash
   * where that is all.
   */
  @Test
  void damageIsJudgedAlike(@TempDir Path folder) throws Exception {
    long seed = Long.getLong("bridge.seed", 20260101L);
    Random random = new Random(seed);
    List<Path> corpus = descriptors().toList();
    int accepted = 0;
    int hashes = 0;
    for (int i = 0; i < MUTANTS; i++) {
      Path from = corpus.get(random.nextInt(corpus.size()));
      byte[] mutant = mutate(Files.readAllBytes(from), random);
      Path path = folder.resolve("mutant.yaml");
      Files.write(path, mutant);
      Programs.Result c =
          Programs.run(
              Map.of(),
              "bridged",
              "--check",
              "--descriptor",
              path.toString(),
              "--listen",
              "unix:" + folder + "/s");
      boolean fine = c.out().contains("pipeline \"");
      String java = verdict(mutant);
      String where = "seed " + seed + ", mutant " + i + " of " + from.getFileName();
      assertEquals(
          fine,
          java.isEmpty(),
          () ->
              where
                  + "\nC: "
                  + c.err()
                  + "\nJava: "
                  + java
                  + "\n"
                  + new String(mutant, StandardCharsets.UTF_8));
      Matcher wanted = OTHER_HASH.matcher(c.err());
      if (wanted.find()) {
        Matcher ours = OTHER_HASH.matcher(java);
        assertTrue(ours.find(), () -> where + "\nJava: " + java);
        assertEquals(wanted.group(1), ours.group(1), where);
        hashes++;
      }
      accepted += fine ? 1 : 0;
    }
    assertTrue(
        accepted > MUTANTS / 50 && hashes > MUTANTS / 50,
        accepted + " accepted, " + hashes + " hashes");
  }

  private static String verdict(byte[] mutant) {
    try {
      Descriptor.parse("mutant", mutant);
      return "";
    } catch (InvalidFileException e) {
      return e.getMessage();
    }
  }

  /** One to three changes, of lines or of values. */
  private static byte[] mutate(byte[] bytes, Random random) {
    if (random.nextInt(5) == 0) {
      return rename(new String(bytes, StandardCharsets.UTF_8), random);
    }
    List<String> lines =
        new ArrayList<>(List.of(new String(bytes, StandardCharsets.UTF_8).split("\n", -1)));
    for (int changes = 1 + random.nextInt(4) / 3; changes > 0; changes--) {
      int at = random.nextInt(lines.size());
      String line = lines.get(at);
      switch (random.nextInt(10)) {
        case 0 -> lines.remove(at);
        case 1 -> lines.add(at, line);
        case 2 -> lines.set(at, line.replaceFirst("^ ", ""));
        case 3 -> lines.set(at, lines.set(random.nextInt(lines.size()), line));
        case 4 -> lines.set(at, flip(line, random));
        case 5, 6 -> lines.set(at, line.replaceFirst("[a-z0-9]\"$", "q\""));
        default -> lines.set(at, revalue(line, random));
      }
      if (lines.isEmpty()) {
        lines.add("");
      }
    }
    return String.join("\n", lines).getBytes(StandardCharsets.UTF_8);
  }

  /**
   * Another text wherever one of the texts stands: where it is a name, nothing but the hash is
   * wrong.
   */
  private static byte[] rename(String text, Random random) {
    List<String> texts =
        Pattern.compile("\"\\w+\"").matcher(text).results().map(MatchResult::group).toList();
    String chosen = texts.get(random.nextInt(texts.size()));
    return text.replace(chosen, "\"q" + chosen.substring(1)).getBytes(StandardCharsets.UTF_8);
  }

  /** Another value behind the key of a line. */
  private static String revalue(String line, Random random) {
    int colon = line.indexOf(": ");
    String value = VALUES.get(random.nextInt(VALUES.size()));
    if (colon < 0) {
      return line.replaceFirst("- \".*\"$", "- " + Matcher.quoteReplacement(value));
    }
    String indent = " ".repeat(line.length() - line.stripLeading().length() + 2);
    return line.substring(0, colon + 2) + value.replace("\n  ", "\n" + indent);
  }

  /** Another character somewhere. */
  private static String flip(String line, Random random) {
    if (line.isEmpty()) {
      return "#";
    }
    String other = "\"':-#{}[]&*!|>%@`,?\\ \tabc019_.";
    int at = random.nextInt(line.length());
    return line.substring(0, at)
        + other.charAt(random.nextInt(other.length()))
        + line.substring(at + 1);
  }
}
