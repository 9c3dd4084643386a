package io.flinkbridge.job;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.flinkbridge.descriptor.Descriptor;
import io.flinkbridge.descriptor.FlinkSettings;
import io.flinkbridge.descriptor.FlinkSettings.Delivery;
import io.flinkbridge.descriptor.Input;
import io.flinkbridge.descriptor.Options;
import io.flinkbridge.descriptor.Segment;
import io.flinkbridge.descriptor.Sink;
import io.flinkbridge.descriptor.Source;
import io.flinkbridge.descriptor.Step;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/** What will run, told to people, or to programs as JSON. */
public final class Plan {
  private final Descriptor descriptor;
  private final FlinkSettings settings;
  private final StringBuilder text = new StringBuilder();

  private Plan(Descriptor descriptor, FlinkSettings settings) {
    this.descriptor = descriptor;
    this.settings = settings;
  }

  /** In words. */
  public static String words(Descriptor descriptor, FlinkSettings settings) {
    return new Plan(descriptor, settings).write();
  }

  private String write() {
    line(
        "pipeline %s, topology %s, max parallelism %d",
        descriptor.pipeline(),
        descriptor.topologyHash(),
        descriptor.segments().get(0).maxParallelism());
    line("");
    line("delivery %s:", settings.delivery().word());
    consequences().forEach(consequence -> line("  %s", consequence));
    for (Source source : descriptor.sources()) {
      line("");
      line(
          "source %s (uid source-%s): %s, parallelism %d",
          source.name(), source.name(), place(source), source.parallelism());
      line("  event time  %s", eventTime(source));
    }
    for (Segment segment : descriptor.segments()) {
      line("");
      line(
          "segment %d, %s (uid segment-%s): parallelism %d%s",
          segment.id(),
          segment.name(),
          segment.name(),
          segment.parallelism(),
          segment.keyed() ? ", keyed" : "");
      reads(segment.inputs());
      line(
          "  steps       %s", String.join(", ", segment.steps().stream().map(Step::name).toList()));
      if (!segment.routes().isEmpty()) {
        line("  routes      %s", String.join(", ", segment.routes()));
      }
      if (!segment.manifest().isEmpty()) {
        line(
            "  remembers   %s",
            String.join(
                ", ",
                segment.manifest().stream()
                    .map(entry -> entry.step() + "." + entry.name())
                    .toList()));
      }
    }
    for (Sink sink : descriptor.sinks()) {
      line("");
      line(
          "sink %s (uid sink-%s): %s, parallelism %d",
          sink.name(), sink.name(), place(sink), sink.parallelism());
      reads(sink.inputs());
    }
    line("");
    line("settings:");
    settings.table().forEach(pair -> line("  %-22s %s", pair[0], pair[1]));
    return text.toString();
  }

  private void line(String format, Object... arguments) {
    text.append(String.format(java.util.Locale.ROOT, format, arguments)).append('\n');
  }

  private void reads(List<Input> inputs) {
    for (Input input : inputs) {
      line(
          "  reads       %s, %s",
          name(input),
          input.partition().word()
              + (input.partitionBy() == null ? "" : " by " + input.partitionBy()));
    }
  }

  private String name(Input input) {
    if (input.fromSource()) {
      return "source " + descriptor.sources().get(input.index()).name();
    }
    Segment segment = descriptor.segments().get(input.index());
    return "segment "
        + segment.name()
        + (segment.routes().isEmpty() ? "" : ", route " + segment.routes().get(input.route()));
  }

  /** What follows from the delivery. */
  private List<String> consequences() {
    List<String> list = new ArrayList<>();
    if (settings.hasCheckpoints()) {
      list.add(
          "a checkpoint every "
              + written("checkpoint_interval")
              + ", "
              + (settings.delivery() == Delivery.EXACTLY_ONCE
                  ? "for which inputs wait for one another"
                  : "for which no input waits: after a failure records may come twice")
              + ", kept "
              + settings
                  .checkpointStorage()
                  .map(place -> "in " + place)
                  .orElse("where the cluster is set to"));
    } else {
      list.add(
          "no checkpoints and no restarts: what was on its way at a failure is lost, and so is state");
    }
    for (Sink sink : descriptor.sinks()) {
      if (sink.kind().equals("kafka")) {
        list.add(kafkaConsequence(sink));
      } else if (sink.kind().equals("file") && !Sinks.isStandardOutput(sink)) {
        list.add(
            "sink " + sink.name() + ": its parts can be read once a checkpoint has finished them");
      }
    }
    return list;
  }

  private String kafkaConsequence(Sink sink) {
    return "sink "
        + sink.name()
        + ": "
        + switch (KafkaEnds.delivery(sink, settings)) {
          case EXACTLY_ONCE ->
              "transactions "
                  + KafkaEnds.transactionalIdPrefix(sink, descriptor)
                  + "-..., committed with each checkpoint; readers need isolation.level=read_committed";
          case AT_LEAST_ONCE -> "every checkpoint waits until the broker has all records";
          case AT_MOST_ONCE -> "nobody waits for the broker";
        };
  }

  private String written(String name) {
    return settings.table().stream()
        .filter(pair -> pair[0].equals(name))
        .findFirst()
        .orElseThrow()[1];
  }

  private static String place(Source source) {
    Options options = source.options();
    return switch (source.kind()) {
      case "file" -> "file " + Places.uri(options.needed("path"));
      case "generator" ->
          (options.number("count") == 0
                  ? "made-up records without end"
                  : options.number("count") + " made-up records")
              + (options.number("rate") == 0 ? "" : ", " + options.number("rate") + " a second");
      case "kafka" ->
          "kafka "
              + (options.has("topic_pattern")
                  ? "topics like " + options.needed("topic_pattern")
                  : String.join(", ", KafkaEnds.topics(options)))
              + " at "
              + String.join(",", options.list("bootstrap_servers"));
      default -> source.kind();
    };
  }

  private static String place(Sink sink) {
    Options options = sink.options();
    return switch (sink.kind()) {
      case "file" ->
          Sinks.isStandardOutput(sink)
              ? "standard output"
              : "parts in " + Places.uri(options.needed("path"));
      case "print" -> "standard output";
      case "discard" -> "nowhere";
      case "kafka" ->
          "kafka "
              + options.needed("stream_name")
              + " at "
              + String.join(",", options.list("bootstrap_servers"));
      default -> sink.kind();
    };
  }

  private static String eventTime(Source source) {
    Options options = source.options();
    String without = source.kind().equals("kafka") ? "Kafka's timestamp" : "the time of reading";
    return options.text("timestamp").orElse(without)
        + ", out of order by up to "
        + Duration.ofMillis(options.number("out_of_orderness")).toMillis()
        + " ms"
        + (options.number("idle") > 0 ? ", idle after " + options.number("idle") + " ms" : "")
        + (options.has("align") ? ", aligned with " + options.needed("align") : "");
  }

  /** As JSON. */
  public static String json(Descriptor descriptor, FlinkSettings settings) {
    Plan plan = new Plan(descriptor, settings);
    ObjectNode root = JqProgram.JSON.createObjectNode();
    root.put("pipeline", descriptor.pipeline()).put("topology", descriptor.topologyHash());
    root.put("delivery", settings.delivery().word());
    ArrayNode consequences = root.putArray("consequences");
    plan.consequences().forEach(consequences::add);
    ArrayNode sources = root.putArray("sources");
    for (Source source : descriptor.sources()) {
      sources
          .addObject()
          .put("name", source.name())
          .put("uid", "source-" + source.name())
          .put("kind", source.kind())
          .put("parallelism", source.parallelism())
          .put("place", place(source))
          .put("event_time", eventTime(source));
    }
    ArrayNode segments = root.putArray("segments");
    for (Segment segment : descriptor.segments()) {
      ObjectNode node =
          segments
              .addObject()
              .put("id", segment.id())
              .put("name", segment.name())
              .put("uid", "segment-" + segment.name())
              .put("parallelism", segment.parallelism())
              .put("max_parallelism", segment.maxParallelism())
              .put("keyed", segment.keyed());
      plan.putInputs(node, segment.inputs());
      ArrayNode steps = node.putArray("steps");
      segment.steps().forEach(step -> steps.add(step.name()));
      ArrayNode routes = node.putArray("routes");
      segment.routes().forEach(routes::add);
    }
    ArrayNode sinks = root.putArray("sinks");
    for (Sink sink : descriptor.sinks()) {
      ObjectNode node =
          sinks
              .addObject()
              .put("name", sink.name())
              .put("uid", "sink-" + sink.name())
              .put("kind", sink.kind())
              .put("parallelism", sink.parallelism())
              .put("place", place(sink));
      plan.putInputs(node, sink.inputs());
    }
    ObjectNode table = root.putObject("settings");
    settings.table().forEach(pair -> table.put(pair[0], pair[1]));
    try {
      return JqProgram.JSON.writerWithDefaultPrettyPrinter().writeValueAsString(root) + "\n";
    } catch (JsonProcessingException e) {
      throw new IllegalStateException(e);
    }
  }

  private void putInputs(ObjectNode node, List<Input> inputs) {
    ArrayNode array = node.putArray("inputs");
    for (Input input : inputs) {
      array.addObject().put("from", name(input)).put("partition", input.partition().word());
    }
  }
}
