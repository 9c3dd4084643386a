package io.flinkbridge.bench;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonPropertyOrder;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.flinkbridge.bench.Bench.Engine;
import java.io.IOException;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichFlatMapFunction;
import org.apache.flink.api.common.functions.RichMapFunction;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/**
 * The jobs as somebody writes them in Java: Jackson, objects used again, state in Flink's backend
 * on the heap.
 */
final class Native implements Engine {
  @Override
  public void build(DataStream<String> lines, JsonNode job) {
    String logic = job.get("logic").asText();
    DataStream<String> out =
        switch (logic) {
          case "identity" -> lines.map(line -> line).name("identity");
          case "stateless" -> lines.flatMap(new Doubled()).name("doubled");
          case "keyed" ->
              lines
                  .map(new Parse())
                  .keyBy(event -> event.user)
                  .process(new Totals())
                  .name("totals");
          default -> throw new IllegalArgumentException("no such logic: " + logic);
        };
    out.sinkTo(MarkSink.ofText(job.get("marks").asText(), job.has("rate")));
  }

  /** Parses, drops every record whose value is a multiple of ten, adds a field, prints. */
  static final class Doubled extends RichFlatMapFunction<String, String> {
    private static final long serialVersionUID = 1L;
    private transient ObjectReader reader;
    private transient ObjectWriter writer;

    @Override
    public void open(OpenContext context) {
      ObjectMapper mapper = new ObjectMapper();
      reader = mapper.readerFor(ObjectNode.class);
      writer = mapper.writer();
    }

    @Override
    public void flatMap(String line, Collector<String> out) throws IOException {
      ObjectNode node = reader.readValue(line);
      long value = node.get("value").longValue();
      if (value % 10 != 0) {
        node.put("doubled", value * 2);
        out.collect(writer.writeValueAsString(node));
      }
    }
  }

  /** What the keyed job needs of a record. */
  @JsonIgnoreProperties(ignoreUnknown = true)
  public static final class Event {
    public String user;
    public long value;
  }

  /** A user's totals, as they are kept and printed. */
  @JsonPropertyOrder({"key", "count", "sum"})
  public static final class Total {
    public String key;
    public long count;
    public long sum;
  }

  static final class Parse extends RichMapFunction<String, Event> {
    private static final long serialVersionUID = 1L;
    private transient ObjectReader reader;

    @Override
    public void open(OpenContext context) {
      reader = new ObjectMapper().readerForUpdating(new Event());
    }

    @Override
    public Event map(String line) throws IOException {
      return reader.readValue(line);
    }
  }

  /** Counts and sums for each user, and emits both with every record. */
  static final class Totals extends KeyedProcessFunction<String, Event, String> {
    private static final long serialVersionUID = 1L;
    private transient ObjectWriter writer;
    private transient ValueState<Total> state;

    @Override
    public void open(OpenContext context) {
      writer = new ObjectMapper().writerFor(Total.class);
      state = getRuntimeContext().getState(new ValueStateDescriptor<>("totals", Total.class));
    }

    @Override
    public void processElement(Event event, Context context, Collector<String> out)
        throws IOException {
      Total total = state.value();
      if (total == null) {
        total = new Total();
        total.key = event.user;
      }
      total.count++;
      total.sum += event.value;
      state.update(total);
      out.collect(writer.writeValueAsString(total));
    }
  }
}
