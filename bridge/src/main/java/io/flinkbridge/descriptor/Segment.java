package io.flinkbridge.descriptor;

import java.io.Serializable;
import java.util.ArrayList;
import java.util.List;

/**
 * A run of steps that a record passes through in one request. Without routes it has one output,
 * number 0; with some, a record's route is an index into them.
 */
public record Segment(
    int id,
    String name,
    String cut,
    int parallelism,
    int maxParallelism,
    boolean keyed,
    List<Step> steps,
    List<Input> inputs,
    List<String> routes)
    implements Serializable {
  public Segment {
    steps = List.copyOf(steps);
    inputs = List.copyOf(inputs);
    routes = List.copyOf(routes);
  }

  /** The step that closes it. */
  public Step last() {
    return steps.get(steps.size() - 1);
  }

  /** What its steps remember. */
  public List<ManifestEntry> manifest() {
    List<ManifestEntry> entries = new ArrayList<>();
    for (Step step : steps) {
      entries.addAll(ManifestEntry.of(this, step));
    }
    return entries;
  }
}
