package io.flinkbridge.job;

import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.descriptor.FlinkSettings.Delivery;
import io.flinkbridge.descriptor.Input;
import io.flinkbridge.descriptor.Options;
import io.flinkbridge.descriptor.Segment;
import io.flinkbridge.descriptor.Sink;
import io.flinkbridge.descriptor.Source;
import java.io.File;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;
import java.util.regex.PatternSyntaxException;
import org.apache.kafka.clients.producer.ProducerConfig;

/** What a pipeline and its settings must not say together: found before anything is submitted. */
final class JobChecks {
  private final Descriptor descriptor;
  private final FlinkSettings settings;
  private final List<String> problems = new ArrayList<>();

  private JobChecks(Descriptor descriptor, FlinkSettings settings) {
    this.descriptor = descriptor;
    this.settings = settings;
  }

  /** Throws with everything that is wrong. */
  static void check(Descriptor descriptor, FlinkSettings settings) {
    List<String> problems = problems(descriptor, settings);
    if (!problems.isEmpty()) {
      throw new UnfitException(String.join("\n", problems));
    }
  }

  /** Everything that is wrong. */
  static List<String> problems(Descriptor descriptor, FlinkSettings settings) {
    JobChecks checks = new JobChecks(descriptor, settings);
    descriptor.sources().forEach(checks::checkSource);
    descriptor.segments().forEach(checks::checkSegment);
    descriptor.sinks().forEach(checks::checkSink);
    checks.checkSettings();
    return checks.problems;
  }

  private void checkSource(Source source) {
    Options options = source.options();
    String what = "source \"" + source.name() + "\": ";
    if (source.kind().equals("file") && options.needed("path").equals("-")) {
      problems.add(
          what
              + "Flink cannot read standard input; name a file or a folder, or use `bridgectl run`");
    }
    checkPattern(source, what);
    for (String name : List.of("timestamp", "program")) {
      String problem = options.text(name).map(JqProgram::problem).orElse(null);
      if (problem != null) {
        problems.add(
            what
                + "the program in \""
                + name
                + "\" runs in the JVM, whose jq does not take it: "
                + problem);
      }
    }
  }

  private void checkPattern(Source source, String what) {
    try {
      source.options().text("topic_pattern").ifPresent(Pattern::compile);
    } catch (PatternSyntaxException e) {
      problems.add(what + "\"topic_pattern\" is no regular expression: " + e.getMessage());
    }
  }

  private void checkSegment(Segment segment) {
    for (Input input : segment.inputs()) {
      String problem = input.partitionBy() == null ? null : JqProgram.problem(input.partitionBy());
      if (problem != null) {
        problems.add(
            "segment \""
                + segment.name()
                + "\": the program in \"partition_by\" runs in the JVM, whose jq does not take it: "
                + problem);
      }
    }
  }

  private void checkSink(Sink sink) {
    String what = "sink \"" + sink.name() + "\": ";
    if (sink.kind().equals("kafka")) {
      checkKafkaSink(sink, what);
    }
    if (!sink.kind().equals("file") || Sinks.isStandardOutput(sink)) {
      return;
    }
    String path = sink.options().needed("path");
    if (!path.contains(":") && new File(path).isFile()) {
      problems.add(
          what
              + path
              + " is a file, but Flink writes a folder of parts there; move the file away, or name another path");
    }
    if (!settings.hasCheckpoints()
        && descriptor.sources().stream().anyMatch(Sources::isUnbounded)) {
      problems.add(
          what
              + "a file is finished at checkpoints, and with `delivery: at_most_once` there are none; "
              + "say `delivery: at_least_once`");
    }
  }

  private void checkKafkaSink(Sink sink, String what) {
    Delivery delivery = KafkaEnds.delivery(sink, settings);
    if (delivery.compareTo(settings.delivery()) > 0) {
      problems.add(
          what
              + "it cannot be "
              + delivery.word()
              + " in a job that is "
              + settings.delivery().word()
              + "; leave its `delivery` away, or change `delivery` in section flink");
    }
    if (delivery != Delivery.EXACTLY_ONCE || settings.delivery() != Delivery.EXACTLY_ONCE) {
      return;
    }
    Duration timeout = transactionTimeout(sink, what);
    Duration needed = longestTransaction();
    if (timeout != null && timeout.compareTo(needed) <= 0) {
      problems.add(
          what
              + "a transaction is open from one checkpoint to the end of the next that does not fail, up to "
              + needed.toSeconds()
              + " s (checkpoint_interval, checkpoint_pause, checkpoint_timeout, tolerable_failures), but Kafka ends it after "
              + timeout.toSeconds()
              + " s (transaction_timeout), and its records would be lost; make transaction_timeout longer or the others shorter");
    }
  }

  /**
   * From the beginning of a checkpoint until one that has begun after it is complete: the next
   * begins when the interval is over, and this one's end and a pause; it may fail, and so may as
   * many as are tolerated.
   */
  private Duration longestTransaction() {
    Duration timeout = settings.duration("checkpoint_timeout");
    Duration interval = settings.duration("checkpoint_interval");
    Duration round = timeout.plus(settings.duration("checkpoint_pause"));
    Duration span = interval.compareTo(round) > 0 ? interval : round;
    return span.multipliedBy(1 + settings.options().number("tolerable_failures")).plus(timeout);
  }

  private Duration transactionTimeout(Sink sink, String what) {
    String text =
        KafkaEnds.producerProperties(sink, settings)
            .getProperty(ProducerConfig.TRANSACTION_TIMEOUT_CONFIG);
    try {
      return Duration.ofMillis(Long.parseLong(text));
    } catch (NumberFormatException e) {
      problems.add(what + "transaction.timeout.ms is no number: " + text);
      return null;
    }
  }

  private void checkSettings() {
    Options options = settings.options();
    if (options.number("restart_delay") > options.number("restart_delay_max")
        && options.has("restart_delay_max")) {
      problems.add("restart_delay is longer than restart_delay_max");
    }
  }
}
