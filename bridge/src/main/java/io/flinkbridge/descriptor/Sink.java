package io.flinkbridge.descriptor;

import java.io.Serializable;
import java.util.List;

/** Where records go. */
public record Sink(String name, String kind, int parallelism, List<Input> inputs, Options options)
    implements Serializable {
  public Sink {
    inputs = List.copyOf(inputs);
  }
}
