package io.flinkbridge.proof;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The input of a scenario, made out of a seed, and what has to come of it: computed here, by
 * neither Flink nor the sidecar.
 *
 * <p>Events of some users, a little out of order; one in twenty comes twice; some are poison, if
 * that is asked for: no JSON, or without a user.
 */
final class Workload {
  private static final int USERS = 200;
  private static final long BEGINNING = 1_700_000_000_000L;
  private static final Pattern TIMESTAMP = Pattern.compile("\"ts\":(\\d+)");

  /** What a user's events come to. */
  static final class Totals {
    /** After each event: how many, and their sum. */
    final List<String> running = new ArrayList<>();

    long count;
    long sum;
    private final Set<Long> seen = new HashSet<>();
  }

  private final List<String> lines = new ArrayList<>();
  private final List<String> poison = new ArrayList<>();
  private final Map<String, Totals> users = new LinkedHashMap<>();
  private final int padding;
  private long distinct;

  /**
   * Makes one. {@code poisonPercent}: of the lines; {@code padding}: characters that each event has
   * besides.
   */
  Workload(long seed, int events, int poisonPercent, int padding) {
    this.padding = padding;
    SplittableRandom random = new SplittableRandom(seed);
    for (int id = 0; lines.size() < events; id++) {
      if (random.nextInt(100) < poisonPercent) {
        String line = random.nextBoolean() ? "{\"no\": JSON " + id : "{\"id\":%d}".formatted(id);
        lines.add(line);
        poison.add(line);
        continue;
      }
      String user = "u" + random.nextInt(USERS);
      long value = random.nextLong(1_000);
      long ts = BEGINNING + id * 10L - random.nextInt(500);
      String line = line(user, id, ts, value);
      for (int copies = random.nextInt(20) == 0 ? 2 : 1; copies > 0; copies--) {
        lines.add(line);
        expect(user, id, value);
      }
    }
  }

  private String line(String user, long id, long ts, long value) {
    return "{\"user\":\"%s\",\"id\":%d,\"ts\":%d,\"value\":%d,\"pad\":\"%s\"}"
        .formatted(user, id, ts, value, "x".repeat(padding));
  }

  private void expect(String user, long id, long value) {
    Totals totals = users.computeIfAbsent(user, name -> new Totals());
    if (totals.seen.add(id)) {
      totals.count++;
      totals.sum += value;
      totals.running.add(
          "{\"key\":\"%s\",\"n\":%d,\"total\":%d}".formatted(user, totals.count, totals.sum));
      distinct++;
    }
  }

  List<String> lines() {
    return lines;
  }

  List<String> poison() {
    return poison;
  }

  Map<String, Totals> users() {
    return users;
  }

  /** How many events there are, each counted once. */
  long distinct() {
    return distinct;
  }

  /** What lets event time pass all others: an event of a user of its own, far in the future. */
  static String end(int partition) {
    return "{\"user\":\"end%d\",\"id\":%d,\"ts\":1700100000000,\"value\":0}"
        .formatted(partition, partition);
  }

  /** When a line happened; poison that does not say it, at the beginning. */
  static long timestamp(String line) {
    Matcher found = TIMESTAMP.matcher(line);
    return found.find() ? Long.parseLong(found.group(1)) : BEGINNING;
  }

  /** Which partition a line goes to: all events of a user to the same. */
  static int partition(String line) {
    int end = line.indexOf(",\"id\"");
    return line.startsWith("{\"user\":\"end")
        ? line.charAt("{\"user\":\"end".length()) - '0'
        : line.substring(0, Math.max(end, 0)).hashCode();
  }
}
