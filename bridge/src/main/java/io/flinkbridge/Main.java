package io.flinkbridge;

import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.descriptor.InvalidFileException;
import io.flinkbridge.job.BrokerChecks;
import io.flinkbridge.job.JobBuilder;
import io.flinkbridge.job.Plan;
import io.flinkbridge.job.UnfitException;
import java.io.PrintStream;
import java.util.List;
import java.util.Set;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** The application's entry point: turns a descriptor into a Flink job and submits it. */
public final class Main {
  static final int FINE = 0;
  static final int FAILED = 1;
  static final int MISUSED = 2;

  /** Whose `main` means that the process is a client of ours, and its exit code ours to choose. */
  private static final Set<String> CLIENTS =
      Set.of(Main.class.getName(), "org.apache.flink.client.cli.CliFrontend");

  private Main() {}

  /** Runs it. */
  public static void main(String[] arguments) throws Exception {
    int code = run(System.out, System.err, arguments);
    if (code == FINE) {
      return;
    }
    if (isClient()) {
      System.exit(code);
    }
    /* Inside a JobManager: that must live on, and say to whoever submitted the job that nothing came of it. */
    throw new IllegalArgumentException(
        "the pipeline was not submitted; its reasons are in the log and on standard error");
  }

  /**
   * Whether the process was started for this; otherwise it is a JobManager that runs the
   * application for somebody.
   */
  private static boolean isClient() {
    List<StackWalker.StackFrame> frames = StackWalker.getInstance().walk(stack -> stack.toList());
    StackWalker.StackFrame first = frames.get(frames.size() - 1);
    return first.getMethodName().equals("main") && CLIENTS.contains(first.getClassName());
  }

  /** The same with streams of its own; the exit code. */
  static int run(PrintStream out, PrintStream err, String... arguments) throws Exception {
    CommandLine line;
    try {
      line = CommandLine.parse(arguments);
    } catch (CommandLine.MisusedException e) {
      err.println("flink-bridge: " + e.getMessage() + "\nTry --help.");
      return MISUSED;
    }
    if (line.help()) {
      out.print(CommandLine.HELP);
      return FINE;
    }
    try {
      return run(line, out, err);
    } catch (InvalidFileException | UnfitException e) {
      err.println(e.getMessage());
      return FAILED;
    }
  }

  private static int run(CommandLine line, PrintStream out, PrintStream err) throws Exception {
    Descriptor descriptor = Descriptor.read(line.descriptor());
    FlinkSettings settings =
        line.config() == null ? FlinkSettings.defaults() : FlinkSettings.read(line.config());
    if (line.sidecar() != null) {
      settings = settings.withSidecar(line.sidecar());
    }
    if (line.explain()) {
      out.print(line.json() ? Plan.json(descriptor, settings) : Plan.words(descriptor, settings));
      return FINE;
    }
    StreamExecutionEnvironment environment =
        line.check()
            ? StreamExecutionEnvironment.createLocalEnvironment(new Configuration())
            : StreamExecutionEnvironment.getExecutionEnvironment();
    JobBuilder.build(environment, descriptor, settings);
    BrokerChecks brokers = BrokerChecks.of(descriptor, settings);
    brokers.warnings().forEach(warning -> err.println("warning: " + warning));
    brokers.problems().forEach(err::println);
    if (!brokers.problems().isEmpty()) {
      return FAILED;
    }
    if (line.check()) {
      environment.getStreamGraph().getJobGraph();
      out.println(
          line.descriptor()
              + ": pipeline \""
              + descriptor.pipeline()
              + "\" is fine: "
              + count(descriptor));
      return FINE;
    }
    environment.execute(descriptor.pipeline());
    return FINE;
  }

  private static String count(Descriptor descriptor) {
    return descriptor.sources().size()
        + " sources, "
        + descriptor.segments().size()
        + " segments, "
        + descriptor.sinks().size()
        + " sinks";
  }
}
