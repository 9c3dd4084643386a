package io.flinkbridge.descriptor;

import java.util.List;
import java.util.Locale;
import java.util.Optional;

/** "Did you mean": the known word nearest to a mistyped one, by edits and swaps of neighbours. */
final class Suggest {
  private static final int LONGEST = 64;

  private Suggest() {}

  /** The nearest one, or none when no one is near enough to be meant. */
  static Optional<String> nearest(String word, List<String> known) {
    int best = word.length() / 3 + 1;
    String nearest = null;
    if (word.isEmpty() || word.length() > LONGEST) {
      return Optional.empty();
    }
    for (String candidate : known) {
      int distance = candidate.length() > LONGEST ? Integer.MAX_VALUE : distance(word, candidate);
      if (distance < best || (distance == best && nearest == null)) {
        best = distance;
        nearest = candidate;
      }
    }
    return Optional.ofNullable(nearest);
  }

  /**
   * How many letters must be changed, added, taken out or swapped to make one word of the other.
   */
  private static int distance(String left, String right) {
    String a = left.toLowerCase(Locale.ROOT);
    String b = right.toLowerCase(Locale.ROOT);
    int[][] rows = new int[a.length() + 1][b.length() + 1];
    for (int i = 0; i <= a.length(); i++) {
      for (int j = 0; j <= b.length(); j++) {
        if (i == 0 || j == 0) {
          rows[i][j] = i + j;
          continue;
        }
        int change = rows[i - 1][j - 1] + (a.charAt(i - 1) == b.charAt(j - 1) ? 0 : 1);
        rows[i][j] = Math.min(change, Math.min(rows[i - 1][j], rows[i][j - 1]) + 1);
        boolean swap =
            i > 1
                && j > 1
                && a.charAt(i - 1) == b.charAt(j - 2)
                && a.charAt(i - 2) == b.charAt(j - 1);
        if (swap) {
          rows[i][j] = Math.min(rows[i][j], rows[i - 2][j - 2] + 1);
        }
      }
    }
    return rows[a.length()][b.length()];
  }
}
