package io.flinkbridge.operator;

import flink_bridge.FlinkBridgeOuterClass.StateDeclaration;
import flink_bridge.FlinkBridgeOuterClass.StatePartition;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import net.openhft.hashing.LongHashFunction;

/**
 * The states of a segment, as a session numbers them. What is kept has ids in place of these
 * numbers, made of the names of step and state: numbers move when a step is added, and a checkpoint
 * is not rewritten for that.
 */
final class Manifest {
  private static final LongHashFunction XXH3 = LongHashFunction.xx3();

  private final List<StateDeclaration> states;
  private final int[] ids;
  private final Map<Integer, Integer> numbers = new HashMap<>();

  Manifest(List<StateDeclaration> states) {
    this.states = List.copyOf(states);
    this.ids = states.stream().mapToInt(Manifest::idOf).toArray();
    for (int i = 0; i < ids.length; i++) {
      Integer other = numbers.putIfAbsent(ids[i], i);
      if (other != null) {
        throw new IllegalStateException(
            String.format(
                "the states %s and %s have the same hash: rename one of their steps",
                name(other), name(i)));
      }
    }
  }

  /** Of the names, which neither change nor come twice. */
  private static int idOf(StateDeclaration state) {
    byte[] names = (state.getStep() + '\0' + state.getName()).getBytes(StandardCharsets.UTF_8);
    return (int) XXH3.hashBytes(names);
  }

  List<StateDeclaration> states() {
    return states;
  }

  int size() {
    return ids.length;
  }

  boolean isEmpty() {
    return ids.length == 0;
  }

  /** The id of a number. */
  int id(int number) {
    return ids[number];
  }

  /** The number of an id, or -1. */
  int number(int id) {
    return numbers.getOrDefault(id, -1);
  }

  StatePartition partition(int number) {
    return states.get(number).getPartition();
  }

  boolean has(StatePartition partition) {
    return states.stream().anyMatch(state -> state.getPartition() == partition);
  }

  String name(int number) {
    return states.get(number).getStep() + "." + states.get(number).getName();
  }
}
