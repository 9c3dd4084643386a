package io.flinkbridge.descriptor;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Options out of a map by the tables, checked as the sidecar checks them. Each type makes its own
 * findings and leaves the option away, so that reading goes on.
 */
final class OptionReader {
  static final int NAME_MAX = 63;
  private static final int TEXT_MAX = 64 << 10;
  private static final int ITEMS_MAX = 1000;
  private static final int ROUTES_MAX = 100;
  private static final int PROGRAMS_MAX = 1000;
  private static final String FORMS = "json, text, bytes";
  private static final Pattern NAME = Pattern.compile("[A-Za-z_][A-Za-z0-9_-]{0,62}");
  private static final Pattern JOINED =
      Pattern.compile(NAME.pattern() + "(\\.\\." + NAME.pattern() + ")?");
  private static final Pattern STATE_NAME =
      Pattern.compile(NAME.pattern() + "\\." + NAME.pattern());
  private static final Pattern ADDRESS =
      Pattern.compile("(?:[^:]*?://)?(\\[[^\\s,/]+\\]|[^\\s,/:]+):([0-9]{1,5})", Pattern.DOTALL);
  private static final Pattern AGGREGATE =
      Pattern.compile("(sum|min|max|avg)\\(.+\\)", Pattern.DOTALL);

  private int programs;

  /** Text: not a map, not nothing, not too long. Null and a finding otherwise. */
  String text(Node node, String what) {
    if (!node.isScalar() || node.isNull()) {
      wrongKind(node, what, "text");
      return null;
    }
    int size = node.text.getBytes(StandardCharsets.UTF_8).length;
    if (size == 0) {
      node.finding("%s is empty", what);
    } else if (size > TEXT_MAX) {
      node.finding("%s has %d bytes; at most %d are allowed", what, size, TEXT_MAX);
    } else {
      return node.text;
    }
    return null;
  }

  /** A name; "" and a finding otherwise. */
  String name(Node node, String what) {
    return name(node, what, NAME);
  }

  /** The name of a segment or of a step in it, which may join two by `..`. */
  String joinedName(Node node, String what) {
    return name(node, what, JOINED);
  }

  private static String name(Node node, String what, Pattern pattern) {
    if (!node.isScalar() || node.isNull()) {
      wrongKind(node, what, "a name");
      return "";
    }
    if (pattern.matcher(node.text).matches()) {
      return node.text;
    }
    node.finding("%s cannot be \"%.80s\"", what, node.text)
        .expected("a letter or _, then letters, digits, _ and -; at most %d of them", NAME_MAX);
    return "";
  }

  /** A jq program; null and a finding otherwise. */
  String program(Node node, String what) {
    String text = text(node, what);
    if (text != null) {
      countProgram(node);
    }
    return text;
  }

  /** A whole number within bounds; the least and a finding otherwise. */
  int number(Node node, String what, int least, int most) {
    if (!node.isScalar() || node.isNull()) {
      wrongKind(node, what, "a whole number");
      return least;
    }
    OptionalLong value = Units.number(node.text);
    if (value.isPresent() && value.getAsLong() >= least && value.getAsLong() <= most) {
      return (int) value.getAsLong();
    }
    node.finding("%s cannot be \"%.40s\"", what, node.text)
        .expected("a whole number from %d to %d", least, most);
    return least;
  }

  /** One of some words; null and a finding otherwise. */
  String word(Node node, String what, List<String> words) {
    if (!node.isScalar() || node.isNull()) {
      wrongKind(node, what, "one of: " + String.join(", ", words));
      return null;
    }
    if (words.contains(node.text)) {
      return node.text;
    }
    node.finding("%s cannot be \"%.80s\"", what, node.text)
        .expected("one of: %s", String.join(", ", words))
        .suggest(node.text, words);
    return null;
  }

  /** The kind that the key `kind` of a map names; null and a finding otherwise. */
  Kinds.Kind kind(Node map, Kinds.Scope scope, String what) {
    Node node = map.find("kind");
    if (node == null) {
      map.finding("%s has no kind", what)
          .expected("kind: one of %s", String.join(", ", scope.names()));
      return null;
    }
    String name = word(node, "the kind of " + what, scope.names());
    return name == null ? null : scope.kind(name);
  }

  /** A list of states, each `step.state`. */
  List<String> stateNames(Node node, String what, int most) {
    List<String> names = new ArrayList<>();
    if (node == null) {
      return names;
    }
    if (node.isList() && node.children.size() > most) {
      node.finding("%s has %d items; at most %d are allowed", what, node.children.size(), most);
      return names;
    }
    for (Node item : node.isList() ? node.children : List.of(node)) {
      String text = text(item, what);
      if (text != null && STATE_NAME.matcher(text).matches()) {
        names.add(text);
      } else if (text != null) {
        item.finding("%s cannot have \"%.80s\"", what, text)
            .expected("STEP.STATE, as `bridgectl explain` shows them");
      }
    }
    return names;
  }

  /**
   * All options of a kind out of a map, defaults filled in, and findings for keys that are none and
   * not `own` either.
   */
  Options options(Node map, Kinds.Kind kind, String what, List<String> own) {
    List<String> keys = new ArrayList<>(own);
    kind.options.forEach(option -> keys.add(option.name));
    map.checkKeys(what, keys);
    Options options = new Options();
    for (Kinds.Option option : kind.options) {
      Node node = map.find(option.name);
      String label = "\"" + option.name + "\" of " + what;
      boolean wanted = checkCondition(map, node, kind, option, options, what);
      if (node != null) {
        read(options, option, node, label);
      } else if (wanted && option.fallback != null) {
        options.put(option.name, fallback(option));
      }
      if (node == null && option.required) {
        map.finding("%s has no \"%s\"", what, option.name)
            .expected("%s: %s", option.name, option.help);
      }
    }
    long given = map.children.stream().filter(child -> kind.oneOf.contains(child.key.text)).count();
    if (given != 1 && !kind.oneOf.isEmpty()) {
      map.finding(
              "%s has %s",
              what,
              given == 0
                  ? "none of the options of which it needs one"
                  : "several options of which it can have but one")
          .expected("one of: %s", String.join(", ", kind.oneOf));
    }
    return options;
  }

  /** Whether an option may be there by what another one is, which has been read before it. */
  private static boolean checkCondition(
      Node map, Node node, Kinds.Kind kind, Kinds.Option option, Options options, String what) {
    if (option.when == null) {
      return true;
    }
    String other = option.when.other();
    if (!options.has(other)) {
      /* Without a finding it was left away, and it has no default. */
      boolean found = map.find(other) != null;
      if (node != null && !found) {
        node.key
            .finding("\"%s\" of %s has no meaning without `%s`", option.name, what, other)
            .expected("%s", option.when.expected());
      }
      return found;
    }
    String word = String.valueOf(options.value(other));
    boolean holds = option.when.holds(word);
    if (!holds && node != null) {
      node.key
          .finding("\"%s\" of %s has no meaning with `%s: %s`", option.name, what, other, word)
          .expected("%s", option.when.expected());
    }
    if (holds && option.when.needed() && node == null) {
      map.finding("%s has no \"%s\", which `%s: %s` needs", what, option.name, other, word)
          .expected("%s: %s", option.name, kind.option(option.name).help);
    }
    return holds;
  }

  /** Whether an option has a meaning with others that have been read before it. */
  static boolean isWanted(Kinds.Option option, Options options) {
    return option.when == null
        || option.when.holds(String.valueOf(options.value(option.when.other())));
  }

  /** The default of an option, which the tables write as a person would. */
  static java.io.Serializable fallback(Kinds.Option option) {
    return switch (option.type) {
      case NUMBER, BYTES, DURATION -> numberOf(option.type, option.fallback).orElseThrow();
      case BOOL -> Boolean.parseBoolean(option.fallback);
      case LIST, MAP, ROUTES -> throw new IllegalStateException(option.name + " has a default");
      default -> option.fallback;
    };
  }

  private void read(Options options, Kinds.Option option, Node node, String what) {
    java.io.Serializable value =
        switch (option.type) {
          case PROGRAM, TEXT -> textOption(option, node, what);
          case NUMBER, BYTES, DURATION -> numberOption(option, node, what);
          case FORM -> word(node, what, List.of(FORMS.split(", ")));
          case CHOICE -> word(node, what, option.choices);
          case BOOL -> boolOption(node, what);
          case LIST -> listOption(option, node, what);
          case MAP -> mapOption(option, node, what);
          case ROUTES -> routesOption(node, what);
        };
    if (value != null) {
      options.put(option.name, value);
    }
  }

  private String textOption(Kinds.Option option, Node node, String what) {
    String text = text(node, what);
    if (text != null && option.type == Kinds.Type.PROGRAM) {
      countProgram(node);
    }
    return text;
  }

  private void countProgram(Node node) {
    if (++programs == PROGRAMS_MAX + 1) {
      node.finding("more than %d programs in one pipeline", PROGRAMS_MAX);
    }
  }

  private static OptionalLong numberOf(Kinds.Type type, String text) {
    return switch (type) {
      case BYTES -> Units.size(text);
      case DURATION -> Units.milliseconds(text);
      default -> Units.number(text);
    };
  }

  private static Long numberOption(Kinds.Option option, Node node, String what) {
    String form =
        option.type == Kinds.Type.BYTES
            ? "a size like 64KiB or 2MiB"
            : option.type == Kinds.Type.DURATION
                ? "a duration like 500ms, 10s or 5min"
                : "a whole number";
    if (!node.isScalar() || node.isNull()) {
      wrongKind(node, what, form);
      return null;
    }
    OptionalLong value = numberOf(option.type, node.text);
    if (value.isPresent()
        && value.getAsLong() >= option.least
        && value.getAsLong() <= option.most) {
      return value.getAsLong();
    }
    Findings.Finding finding = node.finding("%s cannot be \"%.40s\"", what, node.text);
    if (option.most == Long.MAX_VALUE) {
      finding.expected("%s", form);
    } else {
      finding.expected(
          "%s, from %s to %s", form, write(option, option.least), write(option, option.most));
    }
    return null;
  }

  /** A number as a person would write it. */
  static String write(Kinds.Option option, long value) {
    return switch (option.type) {
      case BYTES -> Units.writeSize(value);
      case DURATION -> Units.writeMilliseconds(value);
      default -> Long.toString(value);
    };
  }

  private Boolean boolOption(Node node, String what) {
    String word = word(node, what, List.of("true", "false"));
    return word == null ? null : word.equals("true");
  }

  private static boolean countFits(Node node, String what, int most) {
    int count = node.children.size();
    if (count == 0) {
      node.finding("%s is empty", what);
    } else if (count > most) {
      node.finding("%s has %d items; at most %d are allowed", what, count, most);
    }
    return count > 0 && count <= most;
  }

  private ArrayList<String> listOption(Kinds.Option option, Node node, String what) {
    boolean names = option.name.equals("routes");
    if (!node.isList() && (!node.isScalar() || node.isNull())) {
      wrongKind(node, what, "a list of texts");
      return null;
    }
    if (node.isList() && !countFits(node, what, names ? ROUTES_MAX : ITEMS_MAX)) {
      return null;
    }
    ArrayList<String> items = new ArrayList<>();
    for (Node item : node.isList() ? node.children : List.of(node)) {
      String text = names ? name(item, "a route") : text(item, what);
      if (text == null || text.isEmpty()) {
        continue;
      }
      if (items.contains(text)) {
        item.finding("%s has \"%.80s\" twice", what, text);
        continue;
      }
      items.add(text);
      if (option.values == Kinds.Values.ADDRESS && !isAddress(text)) {
        item.finding("%s cannot have \"%.80s\"", what, text)
            .expected("host:port, the port from 1 to 65535");
      }
    }
    return items;
  }

  private static boolean isAddress(String text) {
    Matcher matcher = ADDRESS.matcher(text);
    if (!matcher.matches()) {
      return false;
    }
    int port = Integer.parseInt(matcher.group(2));
    return port >= 1 && port <= 65535;
  }

  private LinkedHashMap<String, String> mapOption(Kinds.Option option, Node node, String what) {
    if (!node.isMap()) {
      wrongKind(node, what, "a map of names to texts");
      return null;
    }
    if (!countFits(node, what, ITEMS_MAX)) {
      return null;
    }
    LinkedHashMap<String, String> items = new LinkedHashMap<>();
    for (Node item : node.children) {
      if (!item.key.isScalar()) {
        continue;
      }
      boolean empty =
          item.isScalar()
              && item.text.isEmpty()
              && item.quoted
              && option.values == Kinds.Values.TEXT;
      String text = empty ? "" : text(item, what);
      if (item.key.text.isEmpty()) {
        item.key.finding("%s has an empty name", what);
      }
      if (text != null) {
        checkMapValue(option, item, text, what);
        items.put(item.key.text, text);
      }
    }
    if (option.values == Kinds.Values.STATE) {
      checkStates(node, items, what);
    }
    return items;
  }

  private void checkMapValue(Kinds.Option option, Node item, String text, String what) {
    String label = String.format(Locale.ROOT, "\"%.80s\" in %s", item.key.text, what);
    switch (option.values) {
      case PROGRAM -> countProgram(item);
      case AGGREGATE -> checkAggregate(item, text, label, what);
      case STATE -> checkState(item, text, label, what);
      case OFFSET -> checkOffset(item, text, label, what);
      case ENRICH -> {
        boolean header = text.startsWith("header.") && text.length() > "header.".length();
        if (!header && !text.equals("timestamp") && !text.equals("key")) {
          item.finding("%s cannot be \"%.80s\"", label, text)
              .expected("header.NAME, timestamp or key");
        }
      }
      default -> {}
    }
  }

  /** Looks at what a step says of failures beside its policy, which the sidecar alone goes by. */
  void checkRules(Node map, String what) {
    for (Kinds.Option rule : Kinds.Scope.STEP.rules()) {
      Node node = map.find(rule.name);
      if (node != null) {
        read(new Options(), rule, node, "\"" + rule.name + "\" of " + what);
      }
    }
  }

  private static void checkOffset(Node item, String text, String label, String what) {
    int colon = item.key.text.lastIndexOf(':');
    OptionalLong partition = Units.number(item.key.text.substring(colon + 1));
    if (colon <= 0 || partition.isEmpty() || partition.getAsLong() > Integer.MAX_VALUE) {
      item.key.finding("%s cannot have \"%.80s\"", what, item.key.text).expected("TOPIC:PARTITION");
    }
    if (Units.number(text).isEmpty()) {
      item.finding("%s cannot be \"%.80s\"", label, text).expected("a whole number");
    }
  }

  private static void checkState(Node item, String text, String label, String what) {
    if (!NAME.matcher(item.key.text).matches()) {
      item.key
          .finding("a state of %s cannot be called \"%.80s\"", what, item.key.text)
          .expected("a letter or _, then letters, digits, _ and -; at most %d of them", NAME_MAX);
    }
    if (Declaration.parse(text).isEmpty()) {
      item.finding("%s cannot be \"%.80s\"", label, text).expected("%s", Declaration.FORM);
    }
  }

  private static void checkStates(Node node, Map<String, String> states, String what) {
    long timers =
        states.values().stream()
            .map(Declaration::parse)
            .flatMap(Optional::stream)
            .filter(state -> state.kind() == Kinds.StateKind.TIMERS)
            .count();
    if (timers > 1) {
      node.finding("%s has %d states of timers", what, timers)
          .hint("one is enough: timers are told apart by their tags");
    }
    if (states.size() > Declaration.MOST) {
      node.finding(
          "%s has %d states; at most %d are allowed", what, states.size(), Declaration.MOST);
    }
  }

  private void checkAggregate(Node item, String text, String label, String what) {
    if (item.key.text.equals("key")) {
      item.key
          .finding("%s cannot have a field \"key\": that is the key itself", what)
          .hint("choose another name, and `rename` it behind the step if it has to be that");
    }
    if (text.equals("count")) {
      return;
    }
    if (AGGREGATE.matcher(text).matches()) {
      countProgram(item);
      return;
    }
    item.finding("%s cannot be \"%.80s\"", label, text)
        .expected("count, sum(PROGRAM), min(PROGRAM), max(PROGRAM) or avg(PROGRAM)");
  }

  private LinkedHashMap<String, String> routesOption(Node node, String what) {
    if (!node.isMap()) {
      wrongKind(node, what, "a map of route names to jq conditions");
      return null;
    }
    if (!countFits(node, what, ROUTES_MAX)) {
      return null;
    }
    LinkedHashMap<String, String> items = new LinkedHashMap<>();
    Node fallback = null;
    for (Node item : node.children) {
      String name = name(item.key, "a route");
      String condition = text(item, what);
      boolean isDefault = condition != null && condition.equals("default");
      if (isDefault && fallback != null) {
        item.finding("a second default in %s; the first is in line %d", what, fallback.line);
      }
      fallback = isDefault ? item : fallback;
      if (condition != null && !isDefault) {
        countProgram(item);
      }
      if (!name.isEmpty()) {
        items.put(name, condition == null ? "default" : condition);
      }
    }
    return items;
  }

  private static void wrongKind(Node node, String what, String expected) {
    if (node.kind == Node.Kind.BROKEN) {
      return;
    }
    Findings.Finding finding =
        node.finding("%s is %s", what, node.describe()).expected("%s", expected);
    if (expected.equals("text") && !node.isScalar()) {
      finding.hint("text that starts with { or [ needs quotes around it");
    }
  }
}
