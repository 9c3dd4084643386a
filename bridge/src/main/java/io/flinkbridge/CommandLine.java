package io.flinkbridge;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** The arguments of the application. */
record CommandLine(
    Path descriptor,
    Path config,
    String sidecar,
    boolean explain,
    boolean json,
    boolean check,
    boolean help) {
  /** Arguments that cannot be understood. */
  static final class MisusedException extends Exception {
    private static final long serialVersionUID = 1;

    MisusedException(String message) {
      super(message);
    }
  }

  static final String HELP =
      """
      Runs a pipeline on Flink; its steps run in the sidecar beside each TaskManager.

        flink run flink-bridge.jar --descriptor FILE [--config FILE] [--sidecar ADDRESS]
        java -cp "$FLINK_HOME/lib/*:flink-bridge.jar" io.flinkbridge.Main --descriptor FILE ...

        --descriptor FILE   the pipeline, as `bridgectl compile` wrote it
        --config FILE       the deployment: its section `flink` says how Flink runs the pipeline
        --sidecar ADDRESS   where each TaskManager finds its sidecar, in place of the section's `sidecar`
        --explain           tells what would run, and submits nothing
        --json              with --explain: as JSON
        --check             looks everything over, asks Kafka's brokers for topics and limits, and submits nothing
        --help              this

      For example:

        bridgectl compile shop.yaml --config production.yaml -o shop.descriptor.yaml
        flink run flink-bridge.jar --descriptor shop.descriptor.yaml --config production.yaml --check
        flink run -d flink-bridge.jar --descriptor shop.descriptor.yaml --config production.yaml
        flink run -d -s /checkpoints/savepoint-1 flink-bridge.jar --descriptor shop.descriptor.yaml --config production.yaml

      Ends with 0 when it is done, 1 when a file cannot be used or the job fails, 2 when the arguments cannot be understood.
      """;

  /** Reads them. */
  static CommandLine parse(String... arguments) throws MisusedException {
    Path descriptor = null;
    Path config = null;
    String sidecar = null;
    List<String> flags = new ArrayList<>();
    for (int i = 0; i < arguments.length; i++) {
      String name = arguments[i];
      int equals = name.startsWith("--") ? name.indexOf('=') : -1;
      String value = equals < 0 ? null : name.substring(equals + 1);
      name = equals < 0 ? name : name.substring(0, equals);
      switch (name) {
        case "--descriptor", "--config", "--sidecar" -> {
          if (value == null && i + 1 == arguments.length) {
            throw new MisusedException(name + " wants a value");
          }
          value = value == null ? arguments[++i] : value;
          descriptor = name.equals("--descriptor") ? Path.of(value) : descriptor;
          config = name.equals("--config") ? Path.of(value) : config;
          sidecar = name.equals("--sidecar") ? value : sidecar;
        }
        case "--explain", "--json", "--check", "--help" -> {
          if (value != null) {
            throw new MisusedException(name + " takes no value");
          }
          flags.add(name);
        }
        default -> throw new MisusedException("unexpected argument \"" + arguments[i] + "\"");
      }
    }
    CommandLine line =
        new CommandLine(
            descriptor,
            config,
            sidecar,
            flags.contains("--explain"),
            flags.contains("--json"),
            flags.contains("--check"),
            flags.contains("--help"));
    line.verify();
    return line;
  }

  private void verify() throws MisusedException {
    if (help) {
      return;
    }
    if (descriptor == null) {
      throw new MisusedException("--descriptor FILE says which pipeline to run");
    }
    if (json && !explain) {
      throw new MisusedException("--json says how --explain writes; it has no meaning without");
    }
    if (explain && check) {
      throw new MisusedException("--explain or --check, not both");
    }
  }
}
