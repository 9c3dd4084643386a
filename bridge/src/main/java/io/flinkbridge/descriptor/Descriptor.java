package io.flinkbridge.descriptor;

import java.io.Serializable;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;

/** A pipeline, cut into segments, as `bridgectl compile` writes it: read, checked and frozen. */
public record Descriptor(
    String pipeline,
    String topologyHash,
    List<Source> sources,
    List<Segment> segments,
    List<Sink> sinks,
    List<String> dropState)
    implements Serializable {
  /** Of the layout of the file. */
  public static final int FORMAT_VERSION = 1;

  public Descriptor {
    sources = List.copyOf(sources);
    segments = List.copyOf(segments);
    sinks = List.copyOf(sinks);
    dropState = List.copyOf(dropState);
  }

  /** Reads and checks a file. */
  public static Descriptor read(Path path) throws InvalidFileException {
    Findings findings = new Findings();
    return load(Document.read(path, Document.Limits.DESCRIPTOR, findings), findings);
  }

  /** The same from memory; `file` is what findings call it. */
  public static Descriptor parse(String file, String text) throws InvalidFileException {
    return parse(file, text.getBytes(StandardCharsets.UTF_8));
  }

  /** The same from bytes. */
  public static Descriptor parse(String file, byte[] bytes) throws InvalidFileException {
    Findings findings = new Findings();
    return load(Document.of(file, bytes, Document.Limits.DESCRIPTOR, findings), findings);
  }

  private static Descriptor load(Document document, Findings findings) throws InvalidFileException {
    Descriptor descriptor = document.root == null ? null : new DescriptorLoader(document).load();
    if (!findings.isEmpty() || descriptor == null) {
      throw new InvalidFileException(findings);
    }
    return descriptor;
  }

  /** The segment of that name. */
  public Segment segment(String name) {
    return segments.stream()
        .filter(segment -> segment.name().equals(name))
        .findFirst()
        .orElseThrow(() -> new IllegalArgumentException("there is no segment \"" + name + "\""));
  }
}
