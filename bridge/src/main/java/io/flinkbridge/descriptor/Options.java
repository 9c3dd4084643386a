package io.flinkbridge.descriptor;

import java.io.Serializable;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * The options of a source, step or sink, or the settings of a deployment, with defaults filled in.
 * Those without value or default are not there.
 */
public final class Options implements Serializable {
  private static final long serialVersionUID = 1;

  private final LinkedHashMap<String, Serializable> values = new LinkedHashMap<>();

  Options() {}

  void put(String name, Serializable value) {
    values.put(name, value);
  }

  Serializable value(String name) {
    return values.get(name);
  }

  /** Whether there is a value. */
  public boolean has(String name) {
    return values.containsKey(name);
  }

  /** A text, program, word or form. */
  public Optional<String> text(String name) {
    return Optional.ofNullable((String) values.get(name));
  }

  /** A text that has to be there. */
  public String needed(String name) {
    return text(name).orElseThrow(() -> new IllegalStateException("no option " + name));
  }

  /** A number, size in bytes, or duration in milliseconds; 0 without. */
  public long number(String name) {
    return values.get(name) instanceof Long number ? number : 0;
  }

  /** Whether something is said to be true. */
  public boolean flag(String name) {
    return values.get(name) instanceof Boolean flag && flag;
  }

  /** A list. */
  @SuppressWarnings("unchecked")
  public List<String> list(String name) {
    return values.get(name) instanceof List<?> list
        ? Collections.unmodifiableList((List<String>) list)
        : List.of();
  }

  /** A map, in the order written. */
  @SuppressWarnings("unchecked")
  public Map<String, String> map(String name) {
    return values.get(name) instanceof Map<?, ?> map
        ? Collections.unmodifiableMap((Map<String, String>) map)
        : Map.of();
  }

  /** All of them by name, in the order of the table. */
  public Map<String, Serializable> all() {
    return Collections.unmodifiableMap(values);
  }
}
