package io.flinkbridge.descriptor;

import java.util.function.UnaryOperator;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * `${NAME}` and `${NAME:-default}` in the values of a file, by the environment, and `$$` for a
 * dollar.
 */
final class Substitution {
  private static final int MOST = 1 << 20;
  private static final Pattern REFERENCE =
      Pattern.compile("\\{([A-Za-z_][A-Za-z0-9_]{0,127})(?::-([^}]*))?\\}");

  private final UnaryOperator<String> environment;

  Substitution(UnaryOperator<String> environment) {
    this.environment = environment;
  }

  /** Replaces what a value and everything below it refers to. */
  void apply(Node node) {
    if (node.isScalar() && node.text.indexOf('$') >= 0) {
      replace(node);
    }
    node.children.forEach(this::apply);
  }

  private void replace(Node node) {
    StringBuilder result = new StringBuilder();
    int at = 0;
    while (at < node.text.length()) {
      char c = node.text.charAt(at++);
      if (c != '$') {
        result.append(c);
      } else if (node.text.startsWith("{", at)) {
        Matcher matcher = REFERENCE.matcher(node.text).region(at, node.text.length());
        String value = matcher.lookingAt() ? value(node, matcher) : refuse(node);
        if (value == null) {
          return;
        }
        result.append(value);
        at = matcher.end();
      } else {
        result.append('$');
        at += node.text.startsWith("$", at) ? 1 : 0;
      }
      if (result.length() > MOST) {
        node.finding("too much text comes in through variables");
        node.kind = Node.Kind.BROKEN;
        return;
      }
    }
    node.text = result.toString();
  }

  private static String refuse(Node node) {
    node.finding("a \"${\" that is no reference to a variable")
        .expected("${NAME} or ${NAME:-default}")
        .hint("write $${ where the text itself has ${");
    node.kind = Node.Kind.BROKEN;
    return null;
  }

  private String value(Node node, Matcher reference) {
    String name = reference.group(1);
    String value = environment.apply(name);
    String fallback = reference.group(2);
    if (fallback != null && (value == null || value.isEmpty())) {
      return fallback;
    }
    if (value == null) {
      node.finding("the environment has no variable %s", name)
          .hint("set it, or give a default: ${" + name + ":-value}");
    } else if (value.chars().anyMatch(c -> (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)) {
      node.finding("the variable %s is not text without control characters", name);
      value = null;
    }
    node.kind = value == null ? Node.Kind.BROKEN : node.kind;
    return value;
  }
}
