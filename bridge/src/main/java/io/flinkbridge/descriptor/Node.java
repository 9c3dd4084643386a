package io.flinkbridge.descriptor;

import java.util.ArrayList;
import java.util.List;

/** One value of a YAML file, with its place. */
final class Node {
  enum Kind {
    SCALAR,
    MAP,
    LIST,
    /** A finding has been made of it: nothing more is said about it. */
    BROKEN
  }

  Kind kind;
  final Document document;
  final int line;
  final int column;
  String text; /* SCALAR */
  final boolean quoted; /* SCALAR: in quotes or a block */
  Node key; /* in a map */
  final List<Node> children = new ArrayList<>();

  Node(Document document, Kind kind, int line, int column, String text, boolean quoted) {
    this.document = document;
    this.kind = kind;
    this.line = line;
    this.column = column;
    this.text = text;
    this.quoted = quoted;
  }

  boolean isScalar() {
    return kind == Kind.SCALAR;
  }

  boolean isMap() {
    return kind == Kind.MAP;
  }

  boolean isList() {
    return kind == Kind.LIST;
  }

  /** The value of a key in a map, or null. */
  Node find(String name) {
    if (kind != Kind.MAP) {
      return null;
    }
    for (Node child : children) {
      if (child.key.isScalar() && child.key.text.equals(name)) {
        return child;
      }
    }
    return null;
  }

  /** Whether it is a scalar that says nothing: empty, `~` or `null` without quotes. */
  boolean isNull() {
    return kind == Kind.SCALAR
        && !quoted
        && (text.isEmpty() || text.equals("~") || text.equals("null"));
  }

  /** What it is, for messages. */
  String describe() {
    return isNull() ? "empty" : kind == Kind.MAP ? "a map" : kind == Kind.LIST ? "a list" : "text";
  }

  /** Adds a finding at it. */
  Findings.Finding finding(String message, Object... arguments) {
    return document.findings.add(document.file, line, column, message, arguments);
  }

  /** Makes findings of the keys of a map that are not among some names. */
  void checkKeys(String what, List<String> names) {
    for (Node child : children) {
      if (child.key.isScalar() && !names.contains(child.key.text)) {
        child
            .key
            .finding("unknown key \"%.80s\" in %s", child.key.text, what)
            .expected("one of: %s", String.join(", ", names))
            .suggest(child.key.text, names);
      }
    }
  }
}
