package io.flinkbridge.descriptor;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The kinds of sources, steps and sinks and their options, and what a deployment says to Flink: out
 * of the tables.
 */
final class Kinds {
  /** What has kinds. */
  enum Scope {
    SOURCE("sources.def"),
    STEP("steps.def"),
    SINK("sinks.def"),
    FLINK("flink.def");

    private final Map<String, Kind> kinds = new LinkedHashMap<>();
    private final List<Option> rules = new ArrayList<>();

    Scope(String file) {
      for (TableFile.Line line : TableFile.read(file)) {
        take(line);
      }
    }

    /** The kind of that name, or null. */
    Kind kind(String name) {
      return kinds.get(name);
    }

    /** What every entry can say of failures, whatever its kind. */
    List<Option> rules() {
      return rules;
    }

    /** The names of all kinds. */
    List<String> names() {
      return new ArrayList<>(kinds.keySet());
    }

    private void take(TableFile.Line line) {
      List<String> values = line.values();
      switch (line.macro().substring(name().length() + 1)) {
        case "KIND" -> {
          /* Steps are called as in C; the others have a symbol before their name. */
          boolean step = name().equals("STEP");
          String kind = values.get(step ? 0 : 1);
          kinds.put(kind, new Kind(kind, step && Boolean.parseBoolean(values.get(1))));
        }
        case "OPTION" ->
            kinds
                .get(values.get(0))
                .options
                .add(
                    new Option(
                        values.get(1),
                        Type.valueOf(values.get(2)),
                        Boolean.parseBoolean(values.get(3)),
                        values.get(4),
                        values.get(5)));
        case "BOUND" -> {
          Option option = option(values);
          option.least = Long.parseLong(values.get(2));
          option.most = Long.parseLong(values.get(3));
        }
        case "RULE" -> {
          Option rule =
              new Option(
                  values.get(0), Type.valueOf(values.get(1)), false, values.get(2), values.get(5));
          rule.least = Long.parseLong(values.get(3));
          rule.most = Long.parseLong(values.get(4));
          rules.add(rule);
        }
        case "VALUES" -> option(values).values = Values.valueOf(values.get(2));
        case "CHOICES" -> option(values).choices = List.of(values.get(2).split("\\|"));
        case "ONE_OF" -> kinds.get(values.get(0)).oneOf = List.of(values.get(1).split("\\|"));
        case "WHEN" ->
            option(values).when =
                new When(
                    values.get(2),
                    List.of(values.get(3).split("\\|")),
                    Boolean.parseBoolean(values.get(4)));
        case "WITH" -> option(values).when = new When(values.get(2), List.of(), true);
        case "STATE" ->
            kinds
                .get(values.get(0))
                .states
                .add(
                    new State(
                        values.get(1),
                        StateKind.valueOf(values.get(2)),
                        Unkeyed.valueOf(values.get(3)),
                        Integer.parseInt(values.get(4)),
                        values.get(5)));
        default ->
            throw new IllegalStateException("an unknown line in the tables: " + line.macro());
      }
    }

    private Option option(List<String> values) {
      return kinds.get(values.get(0)).option(values.get(1));
    }
  }

  /** The types of options. */
  enum Type {
    PROGRAM,
    TEXT,
    NUMBER,
    BYTES,
    DURATION,
    FORM,
    LIST,
    MAP,
    ROUTES,
    CHOICE,
    BOOL
  }

  /** What the values of a list or map are. */
  enum Values {
    TEXT,
    PROGRAM,
    ENRICH,
    AGGREGATE,
    STATE,
    ADDRESS,
    OFFSET
  }

  /** What a step remembers; the order is that of the wire and of the hash. */
  enum StateKind {
    VALUE,
    MAP,
    LIST,
    TIMERS
  }

  /** What becomes of a state in a segment without keys. */
  enum Unkeyed {
    BY_KEY,
    IF_KEYED,
    SPLIT,
    UNION
  }

  /** An option that is there only if another one is one of some words; no words: is there. */
  record When(String other, List<String> words, boolean needed) {
    /** Whether the other one is what it has to be. */
    boolean holds(String word) {
      return words.isEmpty() || words.contains(word);
    }

    /** What is expected of the other one. */
    String expected() {
      return words.isEmpty() ? other : other + ": one of " + String.join(", ", words);
    }
  }

  /** A state that a step declares. */
  record State(String name, StateKind kind, Unkeyed unkeyed, int version, String ttl) {}

  /**
   * One kind; the flag says of a step that it closes its segment, of a source or sink that it can
   * be split.
   */
  static final class Kind {
    final String name;
    final boolean flag;
    final List<Option> options = new ArrayList<>();
    final List<State> states = new ArrayList<>();
    List<String> oneOf = List.of(); /* exactly one of these options is there */

    Kind(String name, boolean flag) {
      this.name = name;
      this.flag = flag;
    }

    Option option(String wanted) {
      return options.stream()
          .filter(option -> option.name.equals(wanted))
          .findFirst()
          .orElseThrow();
    }

    /** Whether it can be only where records are partitioned by key. */
    boolean needsKeys() {
      return states.stream().anyMatch(state -> state.unkeyed() == Unkeyed.BY_KEY);
    }
  }

  /** One option of a kind. */
  static final class Option {
    final String name;
    final Type type;
    final boolean required;
    final String fallback; /* as a person would write it, or null */
    final String help;
    long least = 0;
    long most = Long.MAX_VALUE;
    Values values = Values.TEXT;
    List<String> choices = List.of();
    When when;

    Option(String name, Type type, boolean required, String fallback, String help) {
      this.name = name;
      this.type = type;
      this.required = required;
      this.fallback = fallback;
      this.help = help;
    }
  }

  private Kinds() {}
}
