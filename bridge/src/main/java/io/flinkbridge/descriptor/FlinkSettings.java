package io.flinkbridge.descriptor;

import java.io.Serializable;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.function.UnaryOperator;

/**
 * How Flink runs a pipeline: the section `flink:` of config.yaml, with every default filled in. The
 * other sections of the file are the compiler's and the sidecar's; they are in the descriptor
 * already.
 */
public final class FlinkSettings implements Serializable {
  private static final long serialVersionUID = 1;
  private static final String SECTION = "flink";
  private static final List<String> SECTIONS =
      List.of(
          "parallelism",
          "max_parallelism",
          "on_error",
          "drop_state",
          "sources",
          "steps",
          "sinks",
          "sidecar",
          SECTION);

  /** What holds after a failure. */
  public enum Delivery {
    AT_MOST_ONCE,
    AT_LEAST_ONCE,
    EXACTLY_ONCE;

    /** As the files write it. */
    public String word() {
      return name().toLowerCase(Locale.ROOT);
    }

    /** By its word. */
    public static Delivery of(String word) {
      return valueOf(word.toUpperCase(Locale.ROOT));
    }
  }

  private final Options options;

  private FlinkSettings(Options options) {
    this.options = options;
  }

  /** All defaults. */
  public static FlinkSettings defaults() {
    Options options = new Options();
    for (Kinds.Option option : Kinds.Scope.FLINK.kind(SECTION).options) {
      if (option.fallback != null && OptionReader.isWanted(option, options)) {
        options.put(option.name, OptionReader.fallback(option));
      }
    }
    return new FlinkSettings(options);
  }

  /** Reads a file. */
  public static FlinkSettings read(Path path) throws InvalidFileException {
    Findings findings = new Findings();
    return load(Document.read(path, Document.Limits.WRITTEN, findings), System::getenv);
  }

  /** The same from memory; `file` is what findings call it. */
  public static FlinkSettings parse(String file, String text, UnaryOperator<String> environment)
      throws InvalidFileException {
    Findings findings = new Findings();
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    return load(Document.of(file, bytes, Document.Limits.WRITTEN, findings), environment);
  }

  private static FlinkSettings load(Document document, UnaryOperator<String> environment)
      throws InvalidFileException {
    FlinkSettings settings = document.root == null ? null : section(document.root, environment);
    if (!document.findings.isEmpty() || settings == null) {
      throw new InvalidFileException(document.findings);
    }
    return settings;
  }

  private static FlinkSettings section(Node root, UnaryOperator<String> environment) {
    if (!root.isMap()) {
      root.finding("the file is %s", root.describe()).expected("a map of sections");
      return null;
    }
    List<String> sections = new ArrayList<>(SECTIONS);
    Kinds.Scope.STEP.rules().forEach(rule -> sections.add(rule.name));
    root.checkKeys("the configuration", sections);
    Node section = root.find(SECTION);
    if (section == null) {
      return defaults();
    }
    new Substitution(environment).apply(section);
    if (!section.isMap()) {
      section
          .finding("the section \"flink\" is %s", section.describe())
          .expected("a map of settings");
      return null;
    }
    Kinds.Kind kind = Kinds.Scope.FLINK.kind(SECTION);
    return new FlinkSettings(
        new OptionReader().options(section, kind, "the section \"flink\"", List.of()));
  }

  /** What holds after a failure. */
  public Delivery delivery() {
    return Delivery.of(options.needed("delivery"));
  }

  /** Whether checkpoints are taken. */
  public boolean hasCheckpoints() {
    return delivery() != Delivery.AT_MOST_ONCE;
  }

  /** A duration by the name of its setting. */
  public Duration duration(String name) {
    if (!options.has(name)) {
      throw new IllegalStateException("no setting " + name);
    }
    return Duration.ofMillis(options.number(name));
  }

  /** Where the sidecar is. */
  public String sidecar() {
    return options.needed("sidecar");
  }

  /** Where checkpoints are kept, if it is said. */
  public Optional<String> checkpointStorage() {
    return options.text("checkpoint_storage");
  }

  /** All settings by name. */
  public Options options() {
    return options;
  }

  /** The same with another sidecar. */
  public FlinkSettings withSidecar(String address) {
    Options copy = new Options();
    options.all().forEach(copy::put);
    copy.put("sidecar", address);
    return new FlinkSettings(copy);
  }

  /** The settings as a table: name and value, as a person would write it. */
  public List<String[]> table() {
    return Kinds.Scope.FLINK.kind(SECTION).options.stream()
        .filter(option -> options.has(option.name))
        .map(option -> new String[] {option.name, written(option)})
        .toList();
  }

  private String written(Kinds.Option option) {
    Object value = options.value(option.name);
    return value instanceof Long number
        ? OptionReader.write(option, number)
        : String.valueOf(value);
  }
}
