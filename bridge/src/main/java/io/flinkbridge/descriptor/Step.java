package io.flinkbridge.descriptor;

import java.io.Serializable;

/** One step of a segment. */
public record Step(String name, String kind, String onError, Options options)
    implements Serializable {
  /** Whether it says which route a record takes; then it is the last of its segment. */
  public boolean hasRoutes() {
    return options.has("routes");
  }
}
