package io.flinkbridge.testing;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;

/** The folder of parts that a file sink writes: what is finished, and so what a reader may see. */
public final class Parts {
  private Parts() {}

  /** The finished parts. Those at work begin with a dot. */
  public static List<Path> finished(Path folder) {
    if (!Files.isDirectory(folder)) {
      return List.of();
    }
    try (Stream<Path> files = Files.list(folder)) {
      return files.filter(file -> !file.getFileName().toString().startsWith(".")).sorted().toList();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** All lines of all finished parts. */
  public static List<String> lines(Path folder) throws IOException {
    List<String> lines = new ArrayList<>();
    for (Path part : finished(folder)) {
      lines.addAll(Files.readAllLines(part));
    }
    return lines;
  }
}
