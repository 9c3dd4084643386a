package io.flinkbridge.descriptor;

import java.util.ArrayList;
import java.util.List;

/**
 * One state of a segment: what restores a checkpoint must have the same; kind and partition are
 * numbers of the wire.
 */
public record ManifestEntry(String step, String name, int kind, int partition, int version) {
  /** Entries of a state with a time to live carry the time of writing: that is another format. */
  static final int VERSION_TTL = 1000;

  static final int BY_KEY = 0;
  static final int SPLIT = 1;
  static final int UNION = 2;

  /** The states that a step has in its segment. */
  static List<ManifestEntry> of(Segment segment, Step step) {
    List<ManifestEntry> entries = new ArrayList<>();
    for (Kinds.State state : Kinds.Scope.STEP.kind(step.kind()).states) {
      if (!segment.keyed() && state.unkeyed().compareTo(Kinds.Unkeyed.IF_KEYED) <= 0) {
        continue;
      }
      int partition =
          segment.keyed() ? BY_KEY : state.unkeyed() == Kinds.Unkeyed.SPLIT ? SPLIT : UNION;
      boolean lives = state.ttl() != null && step.options().number(state.ttl()) > 0;
      entries.add(
          new ManifestEntry(
              step.name(),
              state.name(),
              state.kind().ordinal(),
              partition,
              state.version() + (lives ? VERSION_TTL : 0)));
    }
    step.options()
        .map("state")
        .forEach((name, text) -> entries.addAll(declared(segment, step, name, text)));
    return entries;
  }

  /** The same of one that the pipeline declares. */
  private static List<ManifestEntry> declared(
      Segment segment, Step step, String name, String text) {
    return Declaration.parse(text)
        .filter(state -> segment.keyed() == (state.partition() == BY_KEY))
        .map(
            state ->
                new ManifestEntry(
                    step.name(),
                    name,
                    state.kind().ordinal(),
                    state.partition(),
                    state.version() + (state.lives() ? VERSION_TTL : 0)))
        .stream()
        .toList();
  }
}
