package io.flinkbridge.descriptor;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A table of the sidecar (steps.def and its like) as lines of data. The very files that the C side
 * is compiled from lie in the jar, so that what is a kind, an option, a bound is said in one place
 * for both.
 *
 * <p>Of C it understands what those files need: comments, calls of macros with strings, words and
 * numbers (also {@code 1 << 30}), and macros of their own that stand for several lines.
 */
final class TableFile {
  private static final Pattern TOKEN =
      Pattern.compile(
          "\\s+|/\\*.*?\\*/|(\"(?:[^\"\\\\]|\\\\.)*\")|(\\w+)|(<<)|([(),])", Pattern.DOTALL);
  private static final Pattern DIRECTIVE =
      Pattern.compile("^[ \\t]*#(?:[^\\n]*\\\\\\n)*[^\\n]*$", Pattern.MULTILINE);
  private static final Pattern DEFINITION =
      Pattern.compile("\\s*#\\s*define\\s+(\\w+)\\((\\w+)\\)(.*)", Pattern.DOTALL);

  private final String name;
  private final Map<String, Macro> macros = new HashMap<>();
  private final List<Line> lines = new ArrayList<>();

  /**
   * One call of a macro: texts without their quotes, words and numbers as they are, null for NULL.
   */
  record Line(String macro, List<String> values) {}

  private record Macro(String parameter, List<String> body) {}

  private TableFile(String name) {
    this.name = name;
  }

  /** Reads a table out of the jar. */
  static List<Line> read(String name) {
    try (InputStream in = TableFile.class.getResourceAsStream(name)) {
      if (in == null) {
        throw new IllegalStateException("the jar was built without " + name);
      }
      return parse(name, new String(in.readAllBytes(), StandardCharsets.UTF_8));
    } catch (IOException e) {
      throw new IllegalStateException("the jar cannot be read: " + name, e);
    }
  }

  /** The same from memory. */
  static List<Line> parse(String name, String text) {
    TableFile file = new TableFile(name);
    Matcher matcher = DIRECTIVE.matcher(text);
    StringBuilder rest = new StringBuilder();
    while (matcher.find()) {
      file.define(matcher.group());
      matcher.appendReplacement(rest, "");
    }
    matcher.appendTail(rest);
    file.calls(file.tokens(rest.toString()));
    return file.lines;
  }

  /**
   * Remembers a macro with a body; those without are the ones that whoever includes the file
   * defines.
   */
  private void define(String directive) {
    Matcher matcher = DEFINITION.matcher(directive.replace("\\\n", "\n"));
    if (matcher.matches()) {
      List<String> body = tokens(matcher.group(3));
      if (!body.isEmpty()) {
        macros.put(matcher.group(1), new Macro(matcher.group(2), body));
      }
    }
  }

  private List<String> tokens(String text) {
    List<String> tokens = new ArrayList<>();
    Matcher matcher = TOKEN.matcher(text);
    int at = 0;
    while (at < text.length()) {
      if (!matcher.find(at) || matcher.start() != at) {
        throw wrong("cannot be read at: " + text.substring(at, Math.min(text.length(), at + 40)));
      }
      for (int group = 1; group <= matcher.groupCount(); group++) {
        if (matcher.group(group) != null) {
          tokens.add(matcher.group(group));
        }
      }
      at = matcher.end();
    }
    return tokens;
  }

  /** Takes a sequence of calls. */
  private void calls(List<String> tokens) {
    int at = 0;
    while (at < tokens.size()) {
      String macro = tokens.get(at++);
      if (at == tokens.size() || !tokens.get(at++).equals("(")) {
        throw wrong(macro + " is no call");
      }
      List<String> values = new ArrayList<>();
      List<String> value = new ArrayList<>();
      boolean closed = false;
      while (!closed) {
        if (at == tokens.size()) {
          throw wrong(macro + " has no end");
        }
        String token = tokens.get(at++);
        closed = token.equals(")");
        if (closed || token.equals(",")) {
          values.add(value(value));
          value.clear();
        } else {
          value.add(token);
        }
      }
      call(macro, values);
    }
  }

  private void call(String macro, List<String> values) {
    Macro own = macros.get(macro);
    if (own == null) {
      lines.add(new Line(macro, values));
      return;
    }
    List<String> body = new ArrayList<>(own.body);
    body.replaceAll(token -> token.equals(own.parameter) ? values.get(0) : token);
    calls(body);
  }

  /** One argument. */
  private String value(List<String> tokens) {
    if (tokens.isEmpty()) {
      throw wrong("an empty argument");
    }
    if (tokens.get(0).startsWith("\"")) {
      StringBuilder text = new StringBuilder();
      for (String token : tokens) {
        text.append(token, 1, token.length() - 1);
      }
      return text.toString().replace("\\\"", "\"").replace("\\\\", "\\");
    }
    if (tokens.size() == 3 && tokens.get(1).equals("<<")) {
      return Long.toString(Long.parseLong(tokens.get(0)) << Long.parseLong(tokens.get(2)));
    }
    if (tokens.size() != 1) {
      throw wrong("an argument of " + tokens);
    }
    return tokens.get(0).equals("NULL") ? null : tokens.get(0);
  }

  private IllegalStateException wrong(String words) {
    return new IllegalStateException(name + ": " + words);
  }
}
