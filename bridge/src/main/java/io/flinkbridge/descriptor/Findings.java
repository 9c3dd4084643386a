package io.flinkbridge.descriptor;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Locale;

/** What is wrong with a file: all of it at once, each with its place. */
public final class Findings {
  private static final int MOST = 100;

  private final List<Finding> findings = new ArrayList<>();

  /** One thing that is wrong; line and column count from 1, and are 0 for the file as a whole. */
  public static final class Finding {
    private final String file;
    private final int line;
    private final int column;
    private final String message;
    private String expected;
    private String hint;

    private Finding(String file, int line, int column, String message) {
      this.file = file;
      this.line = line;
      this.column = column;
      this.message = message;
    }

    /** Adds what should have been there. */
    Finding expected(String words, Object... arguments) {
      expected = String.format(Locale.ROOT, words, arguments);
      return this;
    }

    /** Adds what to do about it. */
    Finding hint(String words) {
      hint = words;
      return this;
    }

    /** Adds the known word that is nearest to a mistyped one, if one is near. */
    Finding suggest(String word, List<String> known) {
      Suggest.nearest(word, known).ifPresent(near -> hint("did you mean \"" + near + "\"?"));
      return this;
    }

    @Override
    public String toString() {
      StringBuilder text = new StringBuilder(file);
      if (line > 0) {
        text.append(':').append(line).append(':').append(column);
      }
      text.append(": error: ").append(message);
      if (expected != null) {
        text.append("\n  expected: ").append(expected);
      }
      if (hint != null) {
        text.append("\n  hint: ").append(hint);
      }
      return text.toString();
    }
  }

  /** Adds one. */
  Finding add(String file, int line, int column, String message, Object... arguments) {
    String words = arguments.length == 0 ? message : String.format(Locale.ROOT, message, arguments);
    Finding finding = new Finding(file, line, column, words);
    if (findings.size() < MOST) {
      findings.add(finding);
    }
    return finding;
  }

  /** Whether nothing is wrong. */
  public boolean isEmpty() {
    return findings.isEmpty();
  }

  /** All of them, in the order in which they were found. */
  public List<Finding> all() {
    return Collections.unmodifiableList(findings);
  }

  @Override
  public String toString() {
    StringBuilder text = new StringBuilder();
    for (Finding finding : findings) {
      text.append(finding).append('\n');
    }
    return text.append(findings.size())
        .append(
            findings.size() == 1
                ? " error"
                : findings.size() >= MOST ? " errors or more" : " errors")
        .toString();
  }
}
