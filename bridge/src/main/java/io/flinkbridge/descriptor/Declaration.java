package io.flinkbridge.descriptor;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.StringTokenizer;

/**
 * A state that a pipeline declares for a step of its own code, as descriptor/declared.h has it:
 * {@code map ttl 1h version 2}.
 */
record Declaration(Kinds.StateKind kind, int partition, int version, boolean lives) {
  /** What can stand there, for messages. */
  static final String FORM =
      "value, map, list, timers, split or union, and behind it, if wanted, `ttl DURATION` (of a"
          + " value or map) and `version NUMBER`";

  /** States of one step. */
  static final int MOST = 16;

  private static final int TEXT_MAX = 127;
  private static final long TTL_MAX = 36500L * 86400 * 1000;

  /** Reads what is said of one state. */
  static Optional<Declaration> parse(String text) {
    if (text.getBytes(StandardCharsets.UTF_8).length > TEXT_MAX) {
      return Optional.empty();
    }
    List<String> words = new ArrayList<>();
    StringTokenizer tokens = new StringTokenizer(text, " ");
    while (tokens.hasMoreTokens()) {
      words.add(tokens.nextToken());
    }
    if (words.size() % 2 == 0) {
      return Optional.empty();
    }
    Kinds.StateKind kind = kind(words.get(0));
    long ttl = 0;
    long version = 0;
    boolean fine = kind != null;
    for (int i = 1; i < words.size() && fine; i += 2) {
      String value = words.get(i + 1);
      if (words.get(i).equals("ttl")) {
        OptionalLong read = Units.milliseconds(value);
        fine =
            (kind == Kinds.StateKind.VALUE || kind == Kinds.StateKind.MAP)
                && ttl == 0
                && read.isPresent()
                && read.getAsLong() > 0
                && read.getAsLong() <= TTL_MAX;
        ttl = read.orElse(0);
      } else {
        OptionalLong read = Units.number(value);
        fine =
            words.get(i).equals("version")
                && version == 0
                && read.isPresent()
                && read.getAsLong() >= 1
                && read.getAsLong() < ManifestEntry.VERSION_TTL;
        version = read.orElse(0);
      }
    }
    return fine
        ? Optional.of(
            new Declaration(
                kind, partition(words.get(0)), version == 0 ? 1 : (int) version, ttl > 0))
        : Optional.empty();
  }

  private static Kinds.StateKind kind(String word) {
    return switch (word) {
      case "value" -> Kinds.StateKind.VALUE;
      case "map" -> Kinds.StateKind.MAP;
      case "list", "split", "union" -> Kinds.StateKind.LIST;
      case "timers" -> Kinds.StateKind.TIMERS;
      default -> null;
    };
  }

  private static int partition(String word) {
    return switch (word) {
      case "split" -> ManifestEntry.SPLIT;
      case "union" -> ManifestEntry.UNION;
      default -> ManifestEntry.BY_KEY;
    };
  }

  /** Whether a step declares a state that is kept by key, or one that is not. */
  static boolean any(Step step, boolean byKey) {
    return step.options().map("state").values().stream()
        .map(Declaration::parse)
        .flatMap(Optional::stream)
        .anyMatch(declaration -> (declaration.partition == ManifestEntry.BY_KEY) == byKey);
  }
}
