package io.flinkbridge.descriptor;

import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashMap;
import java.util.Map;
import org.yaml.snakeyaml.DumperOptions.ScalarStyle;
import org.yaml.snakeyaml.LoaderOptions;
import org.yaml.snakeyaml.error.MarkedYAMLException;
import org.yaml.snakeyaml.error.YAMLException;
import org.yaml.snakeyaml.events.AliasEvent;
import org.yaml.snakeyaml.events.CollectionEndEvent;
import org.yaml.snakeyaml.events.CollectionStartEvent;
import org.yaml.snakeyaml.events.DocumentStartEvent;
import org.yaml.snakeyaml.events.Event;
import org.yaml.snakeyaml.events.MappingEndEvent;
import org.yaml.snakeyaml.events.MappingStartEvent;
import org.yaml.snakeyaml.events.NodeEvent;
import org.yaml.snakeyaml.events.ScalarEvent;
import org.yaml.snakeyaml.parser.ParserImpl;
import org.yaml.snakeyaml.reader.StreamReader;

/**
 * YAML into a tree: the parser's events, one by one, onto a stack of open maps and lists. No object
 * is ever made of what a file says. Size, number of values and depth are bounded; anchors, aliases,
 * tags, a second document and keys given twice are refused, as on the sidecar's side.
 */
final class Document {
  private static final int DEPTH_MAX = 32;
  private static final int KEY_MAX = 255;

  /** How much a file may hold. */
  record Limits(int bytes, int nodes) {
    /** Files that people write. */
    static final Limits WRITTEN = new Limits(1 << 20, 100_000);

    /** A descriptor written out of the largest pipeline. */
    static final Limits DESCRIPTOR = new Limits(16 << 20, 400_000);
  }

  final String file;
  final Findings findings;
  Node root; /* null after findings */
  private final Limits limits;
  private int nodes;
  private final Deque<Level> open = new ArrayDeque<>();

  /** A map or list that is open while events come in. */
  private static final class Level {
    final Node node;
    Node key; /* of a map: read, its value not yet */

    Level(Node node) {
      this.node = node;
    }
  }

  private Document(String file, Limits limits, Findings findings) {
    this.file = file;
    this.limits = limits;
    this.findings = findings;
  }

  /** Reads a file; its root is null when it is no YAML at all. */
  static Document read(Path path, Limits limits, Findings findings) {
    Document document = new Document(path.toString(), limits, findings);
    if (!Files.isRegularFile(path)) {
      document.whole(
          Files.isDirectory(path)
              ? "is a directory, not a file"
              : Files.exists(path)
                  ? "is no regular file"
                  : "cannot be read: there is no such file");
      return document;
    }
    try (InputStream in = Files.newInputStream(path)) {
      document.parse(in.readNBytes(limits.bytes + 1));
    } catch (IOException e) {
      document.whole("cannot be read: " + e.getMessage());
    }
    return document;
  }

  /** The same from memory. */
  static Document of(String file, byte[] bytes, Limits limits, Findings findings) {
    Document document = new Document(file, limits, findings);
    document.parse(bytes);
    return document;
  }

  /** A finding about the file as a whole. */
  Findings.Finding whole(String message) {
    return findings.add(file, 0, 0, "%s", message);
  }

  private void parse(byte[] bytes) {
    if (bytes.length > limits.bytes) {
      whole("the file is too large: at most " + (limits.bytes >> 10) + " KiB are read");
      return;
    }
    String text = decode(bytes);
    if (text == null || !isPlain(text)) {
      return;
    }
    LoaderOptions options = new LoaderOptions();
    options.setCodePointLimit(limits.bytes + 1);
    try {
      boolean fine = readEvents(new ParserImpl(new StreamReader(text), options));
      if (fine && root == null) {
        whole("the file is empty");
      }
      root = fine ? root : null;
    } catch (MarkedYAMLException e) {
      root = null;
      int line = e.getProblemMark() == null ? 0 : e.getProblemMark().getLine() + 1;
      int column = e.getProblemMark() == null ? 0 : e.getProblemMark().getColumn() + 1;
      findings.add(file, line, column, "not YAML: %s", e.getProblem());
    } catch (YAMLException e) {
      root = null;
      whole("not YAML: " + e.getMessage());
    }
  }

  /** The text of bytes that are UTF-8; null and a finding otherwise. */
  private String decode(byte[] bytes) {
    int start =
        bytes.length >= 3
                && bytes[0] == (byte) 0xef
                && bytes[1] == (byte) 0xbb
                && bytes[2] == (byte) 0xbf
            ? 3
            : 0;
    try {
      return StandardCharsets.UTF_8
          .newDecoder()
          .onMalformedInput(CodingErrorAction.REPORT)
          .onUnmappableCharacter(CodingErrorAction.REPORT)
          .decode(ByteBuffer.wrap(bytes, start, bytes.length - start))
          .toString();
    } catch (CharacterCodingException e) {
      whole("not UTF-8").hint("save the file as UTF-8");
      return null;
    }
  }

  /** Whether a text is without control characters; a finding otherwise. */
  private boolean isPlain(String text) {
    int line = 1;
    int start = 0;
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      if (c == '\n') {
        line++;
        start = i + 1;
      }
      if (c >= 0x20 ? c != 0x7f : c == '\t' || c == '\n' || c == '\r') {
        continue;
      }
      findings
          .add(
              file,
              line,
              text.codePointCount(start, i) + 1,
              "a control character: the byte 0x%02x",
              (int) c)
          .hint("in double quotes write it as an escape like \\x1b");
      return false;
    }
    return true;
  }

  private boolean readEvents(ParserImpl parser) {
    boolean seen = false;
    while (true) {
      Event event = parser.getEvent();
      if (event.is(Event.ID.StreamEnd)) {
        return true;
      }
      if (event instanceof DocumentStartEvent) {
        if (seen) {
          at(event, Node.Kind.BROKEN, null, false)
              .finding("a second YAML document in one file")
              .hint("leave the `---` away, or make it a file of its own");
          return false;
        }
        seen = true;
      }
      if (event instanceof CollectionEndEvent) {
        Node node = open.pop().node;
        if (event instanceof MappingEndEvent) {
          checkDuplicates(node);
        }
      } else if (event instanceof NodeEvent && !take((NodeEvent) event)) {
        return false;
      }
    }
  }

  /** Takes the event that begins a value. False when reading must stop; the reason is a finding. */
  private boolean take(NodeEvent event) {
    Node node = node(event);
    place(node);
    if (++nodes > limits.nodes) {
      node.finding("more than %d values in one file", limits.nodes);
      return false;
    }
    if (!(event instanceof CollectionStartEvent)) {
      return true;
    }
    if (open.size() == DEPTH_MAX) {
      node.finding("nested deeper than %d levels", DEPTH_MAX);
      return false;
    }
    node.kind = event instanceof MappingStartEvent ? Node.Kind.MAP : Node.Kind.LIST;
    open.push(new Level(node));
    return true;
  }

  /** The value that an event begins. */
  private Node node(NodeEvent event) {
    if (event instanceof AliasEvent) {
      return refuse(
          event,
          "aliases are not used here",
          "write the value out; text that starts with * needs quotes around it");
    }
    if (event instanceof CollectionStartEvent start) {
      Node node =
          at(
              event,
              event instanceof MappingStartEvent ? Node.Kind.MAP : Node.Kind.LIST,
              null,
              false);
      if (event.getAnchor() != null) {
        node.finding("anchors are not used here").hint("write the value out where it is needed");
      }
      if (start.getTag() != null) {
        node.finding("tags are not used here");
      }
      return node;
    }
    return scalar((ScalarEvent) event);
  }

  private Node scalar(ScalarEvent event) {
    if (event.getAnchor() != null) {
      return refuse(event, "anchors are not used here", "write the value out where it is needed");
    }
    if (event.getTag() != null) {
      return refuse(
          event, "tags are not used here", "text that starts with ! needs quotes around it");
    }
    String text = event.getValue();
    if (text.indexOf('\0') >= 0) {
      return refuse(event, "a NUL character inside a text", "leave the \\0 away");
    }
    if (!StandardCharsets.UTF_8.newEncoder().canEncode(text)) {
      return refuse(
          event, "half a character inside a text", "write characters beyond U+FFFF as \\UNNNNNNNN");
    }
    return at(event, Node.Kind.SCALAR, text, event.getScalarStyle() != ScalarStyle.PLAIN);
  }

  private Node refuse(Event event, String words, String hint) {
    Node node = at(event, Node.Kind.BROKEN, "", false);
    node.finding("%s", words).hint(hint);
    return node;
  }

  private Node at(Event event, Node.Kind kind, String text, boolean quoted) {
    return new Node(
        this,
        kind,
        event.getStartMark().getLine() + 1,
        event.getStartMark().getColumn() + 1,
        text,
        quoted);
  }

  /** Puts a value where it belongs: root, key, value or item. */
  private void place(Node node) {
    if (open.isEmpty()) {
      root = node;
      return;
    }
    Level level = open.peek();
    if (level.node.isMap() && level.key == null) {
      level.key = node;
      checkKey(node);
      return;
    }
    node.key = level.key;
    level.key = null;
    level.node.children.add(node);
  }

  private static void checkKey(Node node) {
    if (node.isScalar()) {
      int size = node.text.getBytes(StandardCharsets.UTF_8).length;
      if (size <= KEY_MAX) {
        return;
      }
      node.finding("a key of %d bytes; at most %d are allowed", size, KEY_MAX);
    } else if (node.kind != Node.Kind.BROKEN) {
      node.finding("%s as a key", node.describe()).hint("quote text that starts with { or [");
    }
    node.kind = Node.Kind.BROKEN;
  }

  /** Makes findings of keys that a map has twice. */
  private static void checkDuplicates(Node map) {
    Map<String, Node> seen = new HashMap<>();
    for (Node child : map.children) {
      if (!child.key.isScalar()) {
        continue;
      }
      Node first = seen.putIfAbsent(child.key.text, child.key);
      if (first != null) {
        child.key.finding(
            "the key \"%.80s\" stands here twice; first in line %d", child.key.text, first.line);
      }
    }
  }
}
