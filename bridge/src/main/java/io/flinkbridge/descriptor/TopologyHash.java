package io.flinkbridge.descriptor;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Locale;
import net.openhft.hashing.LongTupleHashFunction;

/**
 * XXH3-128 over what both ends of a session must agree on: names, inputs, keys, routes, max
 * parallelism, manifests. Texts go in with their lengths, numbers as eight bytes, in the order of
 * descriptor/topology.c.
 */
final class TopologyHash {
  private final ByteArrayOutputStream bytes = new ByteArrayOutputStream();

  private TopologyHash() {}

  /** The hash in hex. */
  static String of(Descriptor descriptor) {
    TopologyHash hash = new TopologyHash();
    hash.text(descriptor.pipeline());
    hash.number(descriptor.sources().size());
    descriptor.sources().forEach(source -> hash.text(source.name()));
    hash.number(descriptor.segments().size());
    descriptor.segments().forEach(hash::segment);
    hash.number(descriptor.sinks().size());
    for (Sink sink : descriptor.sinks()) {
      hash.text(sink.name());
      hash.inputs(sink.inputs());
    }
    long[] sum = LongTupleHashFunction.xx128().hashBytes(hash.bytes.toByteArray());
    return String.format(Locale.ROOT, "%016x%016x", sum[1], sum[0]);
  }

  private void segment(Segment segment) {
    Step last = segment.last();
    text(segment.name());
    number(segment.maxParallelism());
    inputs(segment.inputs());
    text(key(last));
    text(last.hasRoutes() ? last.kind() : "");
    number(segment.routes().size());
    segment.routes().forEach(this::text);
    List<ManifestEntry> manifest = segment.manifest();
    number(manifest.size());
    for (ManifestEntry entry : manifest) {
      text(entry.step());
      text(entry.name());
      number(entry.kind());
      number(entry.partition());
      number(entry.version());
    }
  }

  /** What makes the keys that records leave with. */
  private static String key(Step last) {
    if (!last.kind().equals("key_by")) {
      return "";
    }
    Options options = last.options();
    return options.has("key")
        ? options.needed("key")
        : "python " + options.needed("module") + "." + options.needed("function");
  }

  private void inputs(List<Input> inputs) {
    number(inputs.size());
    for (Input input : inputs) {
      number(input.fromSource() ? 1 : 0);
      number(input.index());
      number(input.route());
      number(input.partition() == Partition.HASH ? 1 : 0);
    }
  }

  private void text(String text) {
    byte[] utf8 = text.getBytes(StandardCharsets.UTF_8);
    number(utf8.length);
    bytes.writeBytes(utf8);
  }

  private void number(long value) {
    bytes.writeBytes(ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(value).array());
  }
}
