package io.flinkbridge.testing;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** The programs of the C side, as built: what they say and how they end. */
public final class Programs {
  /** The top of the repository. */
  public static final Path ROOT =
      Path.of(System.getProperty("bridge.root", "..")).toAbsolutePath().normalize();

  /** What became of a run. */
  public record Result(int code, String out, String err) {}

  private Programs() {}

  /** Runs one to its end. */
  public static Result run(Map<String, String> environment, String name, String... arguments)
      throws IOException, InterruptedException {
    List<String> command = new ArrayList<>(List.of(Sidecar.binary(name).toString()));
    command.addAll(List.of(arguments));
    Path out = Files.createTempFile("bridge-program", ".out");
    Path err = Files.createTempFile("bridge-program", ".err");
    try {
      ProcessBuilder builder =
          new ProcessBuilder(command).redirectOutput(out.toFile()).redirectError(err.toFile());
      builder.environment().putAll(environment);
      Process process = builder.start();
      if (!process.waitFor(120, TimeUnit.SECONDS)) {
        process.destroyForcibly();
        throw new IllegalStateException(command + " does not end");
      }
      return new Result(process.exitValue(), text(out), text(err));
    } finally {
      Files.delete(out);
      Files.delete(err);
    }
  }

  private static String text(Path path) throws IOException {
    return new String(Files.readAllBytes(path), StandardCharsets.UTF_8);
  }

  /**
   * Compiles a pipeline, and the configuration over it unless that is null, and returns the
   * descriptor's text.
   */
  public static String compile(Path pipeline, Path config, Map<String, String> environment)
      throws IOException, InterruptedException {
    List<String> arguments = new ArrayList<>(List.of("compile", pipeline.toString()));
    if (config != null) {
      arguments.addAll(List.of("--config", config.toString()));
    }
    Result result = run(environment, "bridgectl", arguments.toArray(String[]::new));
    if (result.code() != 0) {
      throw new IllegalArgumentException(result.err());
    }
    return result.out();
  }
}
