package io.flinkbridge.same;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.flinkbridge.record.BridgeRecord;
import io.flinkbridge.record.Headers;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeHint;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.streaming.api.TimeDomain;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/**
 * The steps that remember something, written for Flink alone: what they do is read out of their
 * documentation, not out of their code.
 */
final class NativeSteps {
  private static final ObjectMapper JSON = new ObjectMapper();

  private NativeSteps() {}

  static JsonNode parse(String payload) {
    try {
      return JSON.readTree(payload);
    } catch (JsonProcessingException e) {
      throw new IllegalArgumentException("no JSON: " + payload, e);
    }
  }

  private static BridgeRecord record(String key, JsonNode payload, long timestamp) {
    byte[] bytes = payload.toString().getBytes(StandardCharsets.UTF_8);
    return new BridgeRecord(bytes, Headers.EMPTY, timestamp, null, 0, 0, 0)
        .withKey(key.getBytes(StandardCharsets.UTF_8));
  }

  /** When totals are emitted. */
  enum Emit {
    UPDATE,
    EVENT_TIME,
    PROCESSING_TIME
  }

  /**
   * {@code aggregate} with count, sum, min, max and avg of {@code .value}; its totals are a value.
   */
  static final class Aggregate extends KeyedProcessFunction<String, BridgeRecord, BridgeRecord> {
    private static final long serialVersionUID = 1L;

    /** The fields of a pipeline's step that mean the same. */
    static final String FIELDS =
        "{ n: count, total: sum(.value), least: min(.value), most: max(.value), mean: avg(.value) }";

    private final Emit emit;
    private final long every;
    private final boolean reset;
    private transient ValueState<long[]> totals;
    private transient ValueState<Long> due;

    Aggregate(Emit emit, long every, boolean reset) {
      this.emit = emit;
      this.every = every;
      this.reset = reset;
    }

    @Override
    public void open(OpenContext context) {
      totals =
          getRuntimeContext()
              .getState(new ValueStateDescriptor<>("totals", TypeInformation.of(long[].class)));
      due = getRuntimeContext().getState(new ValueStateDescriptor<>("due", Types.LONG));
    }

    @Override
    public void processElement(BridgeRecord in, Context context, Collector<BridgeRecord> out)
        throws Exception {
      long value = parse(in.text()).get("value").asLong();
      long[] old = totals.value();
      long[] now =
          old == null
              ? new long[] {1, value, value, value, in.timestamp}
              : new long[] {
                old[0] + 1,
                old[1] + value,
                Math.min(old[2], value),
                Math.max(old[3], value),
                Math.max(old[4], in.timestamp)
              };
      totals.update(now);
      if (emit == Emit.UPDATE) {
        out.collect(
            record(context.getCurrentKey(), describe(context.getCurrentKey(), now), in.timestamp));
      } else if (due.value() == null) {
        boolean byEvent = emit == Emit.EVENT_TIME;
        long from =
            byEvent
                ? Math.max(in.timestamp, context.timerService().currentWatermark())
                : context.timerService().currentProcessingTime();
        long next = from - Math.floorMod(from, every) + every;
        due.update(next);
        if (byEvent) {
          context.timerService().registerEventTimeTimer(next);
        } else {
          context.timerService().registerProcessingTimeTimer(next);
        }
      }
    }

    @Override
    public void onTimer(long timestamp, OnTimerContext context, Collector<BridgeRecord> out)
        throws Exception {
      long[] now = totals.value();
      long time =
          context.timeDomain() == TimeDomain.EVENT_TIME
              ? timestamp
              : Math.max(now[4], context.timerService().currentWatermark());
      out.collect(record(context.getCurrentKey(), describe(context.getCurrentKey(), now), time));
      due.clear();
      if (reset) {
        totals.clear();
      }
    }

    private static ObjectNode describe(String key, long[] totals) {
      return JSON.createObjectNode()
          .put("key", key)
          .put("n", totals[0])
          .put("total", totals[1])
          .put("least", totals[2])
          .put("most", totals[3])
          .put("mean", (double) totals[1] / totals[0]);
    }
  }

  /** {@code dedup} by {@code .id}, with or without a time to live; what it remembers is a map. */
  static final class Dedup extends KeyedProcessFunction<String, BridgeRecord, BridgeRecord> {
    private static final long serialVersionUID = 1L;
    private final long ttl;
    private transient MapState<String, Long> seen;

    Dedup(long ttl) {
      this.ttl = ttl;
    }

    @Override
    public void open(OpenContext context) {
      seen =
          getRuntimeContext()
              .getMapState(new MapStateDescriptor<>("seen", Types.STRING, Types.LONG));
    }

    @Override
    public void processElement(BridgeRecord in, Context context, Collector<BridgeRecord> out)
        throws Exception {
      String id = parse(in.text()).get("id").toString();
      long now = context.timerService().currentProcessingTime();
      Long before = seen.get(id);
      if (before == null || now - before >= ttl) {
        seen.put(id, now);
        out.collect(in);
      }
    }
  }

  /**
   * {@code batch} by key, size and time; what is pending is a list. The end of time stands for the
   * end of input.
   */
  static final class Batch extends KeyedProcessFunction<String, BridgeRecord, BridgeRecord> {
    private static final long serialVersionUID = 1L;
    private final int size;
    private final long time;
    private transient ListState<Tuple2<Long, String>> pending;
    private transient ValueState<Long> due;

    Batch(int size, long time) {
      this.size = size;
      this.time = time;
    }

    @Override
    public void open(OpenContext context) {
      pending =
          getRuntimeContext()
              .getListState(
                  new ListStateDescriptor<>(
                      "pending", TypeInformation.of(new TypeHint<Tuple2<Long, String>>() {})));
      due = getRuntimeContext().getState(new ValueStateDescriptor<>("due", Types.LONG));
    }

    @Override
    public void processElement(BridgeRecord in, Context context, Collector<BridgeRecord> out)
        throws Exception {
      if (due.value() == null) {
        due.update(context.timerService().currentProcessingTime() + time);
        context.timerService().registerProcessingTimeTimer(due.value());
        context.timerService().registerEventTimeTimer(Long.MAX_VALUE);
      }
      pending.add(Tuple2.of(in.timestamp, in.text()));
      if (elements().size() >= size) {
        close(context, out);
      }
    }

    @Override
    public void onTimer(long timestamp, OnTimerContext context, Collector<BridgeRecord> out)
        throws Exception {
      close(context, out);
    }

    private List<Tuple2<Long, String>> elements() throws Exception {
      List<Tuple2<Long, String>> all = new ArrayList<>();
      pending.get().forEach(all::add);
      return all;
    }

    private void close(Context context, Collector<BridgeRecord> out) throws Exception {
      ArrayNode batch = JSON.createArrayNode();
      long latest = context.timerService().currentWatermark();
      for (Tuple2<Long, String> element : elements()) {
        batch.add(parse(element.f1));
        latest = Math.max(latest, element.f0);
      }
      context.timerService().deleteProcessingTimeTimer(due.value());
      context.timerService().deleteEventTimeTimer(Long.MAX_VALUE);
      pending.clear();
      due.clear();
      out.collect(record(context.getCurrentKey(), batch, latest));
    }
  }
}
