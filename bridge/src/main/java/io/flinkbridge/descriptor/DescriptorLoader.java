package io.flinkbridge.descriptor;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * A descriptor out of its file. What the compiler guarantees about segments, inputs and routes is
 * checked again here, as the sidecar does (descriptor/load.c), because everybody behind this
 * believes it:
 *
 * <ul>
 *   <li>segments stand in the order of their ids, and read only from sources and from segments of
 *       smaller ids;
 *   <li>what leaves a key_by is partitioned by hash, nothing else is, and a segment is keyed if all
 *       of its inputs are;
 *   <li>a step that keeps state by key is in a segment that is keyed;
 *   <li>forward joins equal parallelism;
 *   <li>a step that closes a segment is its last, and the segment's routes are that step's;
 *   <li>the topology hash is that of the file.
 * </ul>
 */
final class DescriptorLoader {
  private static final int SEGMENTS_MAX = 63;
  private static final int EDGES_MAX = 100;
  private static final int STEPS_MAX = 1000 + SEGMENTS_MAX;
  private static final int INPUTS_MAX = 64;
  private static final int DROPS_MAX = 1000;
  private static final int PARALLELISM_MAX = 32768;
  private static final String DEAD_LETTER = "dead_letter";

  private final Document document;
  private final Findings findings;
  private final OptionReader reader = new OptionReader();
  private final List<Source> sources = new ArrayList<>();
  private final List<Draft> drafts = new ArrayList<>();
  private final List<Sink> sinks = new ArrayList<>();
  private String pipeline;
  private String hash = "";
  private Node hashAt;
  private List<String> drops = List.of();
  private int stepCount;

  /** A segment on its way. */
  private static final class Draft {
    Node at; /* its config; null when it is none */
    String name = "";
    String cut = "";
    int id;
    int parallelism = 1;
    int maxParallelism = 1;
    boolean keyed;
    List<Step> steps = new ArrayList<>();
    List<Input> inputs = List.of();
    List<String> routes = List.of();

    boolean endsInKeyBy() {
      return !steps.isEmpty() && steps.get(steps.size() - 1).kind().equals("key_by");
    }
  }

  DescriptorLoader(Document document) {
    this.document = document;
    this.findings = document.findings;
  }

  /** Reads the tree; null after findings. */
  Descriptor load() {
    Node root = document.root;
    if (!isKind(root, Node.Kind.MAP, "a descriptor")) {
      return null;
    }
    root.checkKeys("a descriptor", List.of("sources", "steps", "sinks"));
    Node sourcesAt = needed(root, "sources", "the descriptor");
    Node stepsAt = needed(root, "steps", "the descriptor");
    Node sinksAt = needed(root, "sinks", "the descriptor");
    if (!isKind(sourcesAt, Node.Kind.MAP, "sources")
        || !isKind(stepsAt, Node.Kind.LIST, "steps")
        || !isKind(sinksAt, Node.Kind.MAP, "sinks")
        || !checkVersion(stepsAt)
        || !countsFit(root, sourcesAt, stepsAt, sinksAt)) {
      return null;
    }
    sourcesAt.children.forEach(this::loadSource);
    stepsAt.children.forEach(this::loadSegment);
    loadInputs();
    sinksAt.children.forEach(this::loadSink);
    checkNames();
    return findings.isEmpty() ? finish() : null;
  }

  /** Freezes what was read, and compares the hash in the file with that of what was read. */
  private Descriptor finish() {
    List<Segment> segments = new ArrayList<>();
    for (Draft draft : drafts) {
      segments.add(
          new Segment(
              draft.id,
              draft.name,
              draft.cut,
              draft.parallelism,
              draft.maxParallelism,
              draft.keyed,
              draft.steps,
              draft.inputs,
              draft.routes));
    }
    Descriptor descriptor = new Descriptor(pipeline, hash, sources, segments, sinks, drops);
    String own = TopologyHash.of(descriptor);
    if (!own.equals(hash)) {
      hashAt
          .finding("the topology hash is not that of this file")
          .expected("%s", own)
          .hint("the file was edited: change the pipeline instead, and compile it again");
    }
    return descriptor;
  }

  /**
   * Whether the file is of a version that is understood; what is missing is found with everything
   * else.
   */
  private static boolean checkVersion(Node steps) {
    Node config = steps.children.isEmpty() ? null : steps.children.get(0).find("config");
    Node version = config == null ? null : config.find("format_version");
    if (version == null
        || !version.isScalar()
        || version.text.equals(Integer.toString(Descriptor.FORMAT_VERSION))) {
      return true;
    }
    version
        .finding(
            "a descriptor of another format version; this program reads version %d",
            Descriptor.FORMAT_VERSION)
        .hint("compile the pipeline again with this version of bridgectl");
    return false;
  }

  private static boolean countsFit(Node root, Node sources, Node steps, Node sinks) {
    if (steps.children.isEmpty() || steps.children.size() > SEGMENTS_MAX) {
      steps.finding("%d segments", steps.children.size()).expected("1 to %d", SEGMENTS_MAX);
      return false;
    }
    int most = Math.max(sources.children.size(), sinks.children.size());
    int least = Math.min(sources.children.size(), sinks.children.size());
    if (least == 0 || most > EDGES_MAX) {
      root.finding(
          "%d sources and %d sinks; at least one of each, at most %d",
          sources.children.size(), sinks.children.size(), EDGES_MAX);
      return false;
    }
    return true;
  }

  private void loadSource(Node entry) {
    String what = "source \"" + shortened(entry.key) + "\"";
    String name = reader.name(entry.key, "the name of a source");
    Kinds.Kind kind = edgeKind(entry, Kinds.Scope.SOURCE, what);
    Options options =
        kind == null
            ? new Options()
            : reader.options(entry, kind, what, List.of("kind", "parallelism"));
    int parallelism =
        kind == null ? 1 : neededNumber(entry, "parallelism", what, 1, PARALLELISM_MAX);
    sources.add(new Source(name, kind == null ? "" : kind.name, parallelism, options));
  }

  private void loadSink(Node entry) {
    String what = "sink \"" + shortened(entry.key) + "\"";
    String name = reader.name(entry.key, "the name of a sink");
    Kinds.Kind kind = edgeKind(entry, Kinds.Scope.SINK, what);
    Options options =
        kind == null
            ? new Options()
            : reader.options(entry, kind, what, List.of("kind", "parallelism", "inputs"));
    int parallelism =
        kind == null ? 1 : neededNumber(entry, "parallelism", what, 1, PARALLELISM_MAX);
    List<Input> inputs = entry.isMap() ? inputs(entry, parallelism, drafts.size()) : List.of();
    sinks.add(new Sink(name, kind == null ? "" : kind.name, parallelism, inputs, options));
  }

  private Kinds.Kind edgeKind(Node entry, Kinds.Scope scope, String what) {
    return isKind(entry, Node.Kind.MAP, what) ? reader.kind(entry, scope, what) : null;
  }

  /** Reads one segment, but for its inputs. */
  private void loadSegment(Node entry) {
    Draft draft = new Draft();
    int index = drafts.size();
    drafts.add(draft);
    if (!isKind(entry, Node.Kind.MAP, "a segment")) {
      return;
    }
    entry.checkKeys("a segment", List.of("step_name", "config"));
    Node name = needed(entry, "step_name", "the segment");
    Node config = needed(entry, "config", "the segment");
    draft.name = name == null ? "" : reader.joinedName(name, "the name of a segment");
    if (!isKind(config, Node.Kind.MAP, "the config")) {
      return;
    }
    draft.at = config;
    config.checkKeys(
        "the config",
        List.of(
            "format_version",
            "pipeline",
            "topology_hash",
            "id",
            "parallelism",
            "max_parallelism",
            "keyed",
            "cut",
            "drop_state",
            "inputs",
            "routes",
            "chain"));
    loadIdentity(config);
    int version = Descriptor.FORMAT_VERSION;
    neededNumber(config, "format_version", "the config", version, version);
    draft.id = neededNumber(config, "id", "the config", 0, SEGMENTS_MAX - 1);
    if (draft.id != index && config.find("id") != null) {
      config
          .find("id")
          .finding("segments are out of order: id %d", draft.id)
          .expected("id: %d", index);
    }
    draft.maxParallelism =
        neededNumber(config, "max_parallelism", "the config", 1, PARALLELISM_MAX);
    draft.parallelism = neededNumber(config, "parallelism", "the config", 1, draft.maxParallelism);
    draft.keyed = neededBool(config, "keyed", "the config");
    draft.cut = neededText(config, "cut", "the config");
    loadChain(config, draft);
    if (!draft.steps.isEmpty()) {
      checkRoutes(config, draft);
    }
  }

  /**
   * Reads what all segments of a descriptor say alike: the pipeline, its hash, and what it drops.
   */
  private void loadIdentity(Node config) {
    String itsPipeline = neededText(config, "pipeline", "the config");
    String itsHash = neededText(config, "topology_hash", "the config");
    List<String> itsDrops = reader.stateNames(config.find("drop_state"), "drop_state", DROPS_MAX);
    if (pipeline == null) {
      pipeline = itsPipeline;
      hash = itsHash;
      drops = itsDrops;
      hashAt = config.find("topology_hash");
      return;
    }
    if (!itsPipeline.equals(pipeline)) {
      config.finding(
          "this segment is of pipeline \"%.80s\", the first of \"%.80s\"", itsPipeline, pipeline);
    }
    if (!itsHash.equals(hash)) {
      config.finding("this segment has another topology hash than the first");
    }
    if (!itsDrops.equals(drops)) {
      config.finding("this segment drops other states than the first");
    }
  }

  private void loadChain(Node config, Draft draft) {
    Node chain = needed(config, "chain", "the config");
    if (!isKind(chain, Node.Kind.LIST, "the chain")) {
      return;
    }
    if (chain.children.isEmpty() || chain.children.size() + stepCount > STEPS_MAX) {
      chain.finding(
          chain.children.isEmpty() ? "the chain is empty" : "too many steps in one descriptor");
      return;
    }
    stepCount += chain.children.size();
    for (Node node : chain.children) {
      Step step = step(node, node == chain.children.get(chain.children.size() - 1));
      if (step != null) {
        draft.steps.add(step);
      }
    }
    draft.routes = routesOf(draft.steps);
  }

  private Step step(Node node, boolean last) {
    String what = "a step of the chain";
    if (!isKind(node, Node.Kind.MAP, what)) {
      return null;
    }
    Node name = needed(node, "name", what);
    String called = name == null ? "" : reader.joinedName(name, "the name of a step");
    Kinds.Kind kind = reader.kind(node, Kinds.Scope.STEP, what);
    if (kind == null) {
      return null;
    }
    Node policy = needed(node, "on_error", what);
    String onError =
        policy == null
            ? null
            : reader.word(policy, "on_error", List.of("fail", "skip", DEAD_LETTER));
    List<String> own = new ArrayList<>(List.of("name", "kind", "on_error"));
    Kinds.Scope.STEP.rules().forEach(rule -> own.add(rule.name));
    reader.checkRules(node, what);
    Options options = reader.options(node, kind, what, own);
    if ((kind.flag || options.has("routes")) && !last) {
      node.finding("a %s in the middle of a chain: it has to be the last step", kind.name);
    }
    return new Step(called, kind.name, onError == null ? "fail" : onError, options);
  }

  /**
   * The routes that steps make: those of the last one, else one called main, then those of dead
   * letters.
   */
  private static List<String> routesOf(List<Step> steps) {
    List<String> routes = new ArrayList<>();
    boolean aside = steps.stream().anyMatch(step -> step.onError().equals(DEAD_LETTER));
    if (!steps.isEmpty()) {
      Options options = steps.get(steps.size() - 1).options();
      if (options.value("routes") instanceof Map<?, ?>) {
        routes.addAll(options.map("routes").keySet());
      } else {
        routes.addAll(options.list("routes"));
      }
    }
    if (routes.isEmpty() && aside) {
      routes.add("main");
    }
    for (Step step : steps) {
      if (step.onError().equals(DEAD_LETTER)) {
        routes.add(step.name() + "." + DEAD_LETTER);
      }
    }
    return routes;
  }

  private static void checkRoutes(Node config, Draft draft) {
    Node node = config.find("routes");
    List<String> written = new ArrayList<>();
    boolean same = node == null || node.isList();
    if (node != null && node.isList()) {
      for (Node item : node.children) {
        same = same && item.isScalar();
        written.add(item.text);
      }
    }
    same = same && written.equals(draft.routes) && (node == null || !written.isEmpty());
    if (!same && !(node != null && node.isList() && written.isEmpty() && draft.routes.isEmpty())) {
      (node == null ? config : node)
          .finding(
              "the routes of the segment are not those of its last step and of its dead letters");
    }
  }

  /** Reads the inputs of all segments. */
  private void loadInputs() {
    for (int i = 0; i < drafts.size(); i++) {
      Draft draft = drafts.get(i);
      if (draft.at == null) {
        continue;
      }
      draft.inputs = inputs(draft.at, draft.parallelism, i);
      long hashed =
          draft.inputs.stream().filter(input -> input.partition() == Partition.HASH).count();
      if (hashed != (draft.keyed ? draft.inputs.size() : 0)) {
        draft.at.finding("a segment is keyed if all of its inputs are, and only then");
      }
      for (Step step : draft.steps) {
        if (draft.keyed && Declaration.any(step, false)) {
          draft.at.finding(
              "step \"%s\" declares a split or union state in a segment that is keyed",
              step.name());
        }
        if (!draft.keyed
            && (Kinds.Scope.STEP.kind(step.kind()).needsKeys() || Declaration.any(step, true))) {
          draft.at.finding(
              "step \"%s\" (%s) is in a segment that is not keyed", step.name(), step.kind());
        }
      }
    }
  }

  private List<Input> inputs(Node map, int parallelism, int before) {
    Node list = needed(map, "inputs", "this");
    List<Input> inputs = new ArrayList<>();
    if (!isKind(list, Node.Kind.LIST, "inputs")) {
      return inputs;
    }
    if (list.children.isEmpty() || list.children.size() > INPUTS_MAX) {
      list.finding("%d inputs", list.children.size()).expected("1 to %d", INPUTS_MAX);
    }
    for (Node node : list.children) {
      Input input = input(node, parallelism, before);
      if (input != null) {
        inputs.add(input);
      }
    }
    return inputs;
  }

  private Input input(Node node, int parallelism, int before) {
    if (!isKind(node, Node.Kind.MAP, "an input")) {
      return null;
    }
    node.checkKeys("an input", List.of("source", "segment", "route", "partition", "partition_by"));
    Node source = node.find("source");
    Node segment = node.find("segment");
    if ((source == null) == (segment == null)) {
      node.finding("an input is a source or a segment").expected("source: NAME or segment: NAME");
      return null;
    }
    int index = source != null ? sourceIndex(source) : segmentIndex(segment, before);
    if (index < 0) {
      return null;
    }
    int route = source != null ? 0 : route(node, drafts.get(index));
    Partition partition =
        partition(node, source != null ? null : drafts.get(index), index, route, parallelism);
    return partition == null
        ? null
        : new Input(source != null, index, route, partition, partitionBy(node, partition));
  }

  /** The program by which an input is partitioned; null without one. */
  private String partitionBy(Node node, Partition partition) {
    Node program = node.find("partition_by");
    if ((program != null) != (partition == Partition.CUSTOM)) {
      (program == null ? node : program)
          .finding("\"partition_by\" belongs to the partition custom, and only there");
      return null;
    }
    return program == null ? null : reader.program(program, "partition_by");
  }

  private int sourceIndex(Node node) {
    for (int i = 0; node.isScalar() && i < sources.size(); i++) {
      if (!sources.get(i).name().isEmpty() && sources.get(i).name().equals(node.text)) {
        return i;
      }
    }
    node.finding("there is no source \"%.130s\"", node.isScalar() ? node.text : "?");
    return -1;
  }

  private int segmentIndex(Node node, int before) {
    for (int i = 0; node.isScalar() && i < before; i++) {
      if (!drafts.get(i).name.isEmpty() && drafts.get(i).name.equals(node.text)) {
        return i;
      }
    }
    node.finding("there is no segment \"%.130s\" before this", node.isScalar() ? node.text : "?");
    return -1;
  }

  /** The route that an input names. */
  private static int route(Node node, Draft segment) {
    Node route = node.find("route");
    if (route == null && !segment.routes.isEmpty()) {
      node.finding("the input has no \"route\", but segment \"%s\" has routes", segment.name);
    }
    if (route == null) {
      return 0;
    }
    int index = route.isScalar() ? segment.routes.indexOf(route.text) : -1;
    if (index < 0) {
      route.finding("segment \"%s\" has no such route", segment.name);
    }
    return Math.max(index, 0);
  }

  /** The partition of an input, checked against both of its ends. */
  private Partition partition(Node node, Draft segment, int index, int route, int parallelism) {
    Node at = needed(node, "partition", "the input");
    if (at == null) {
      return null;
    }
    Partition partition = null;
    for (Partition candidate : Partition.values()) {
      if (at.isScalar() && candidate.word().equals(at.text)) {
        partition = candidate;
      }
    }
    if (partition == null) {
      at.finding("no partition").expected("forward, rebalance, hash, broadcast or custom");
      return null;
    }
    int feeding = segment == null ? sources.get(index).parallelism() : segment.parallelism;
    boolean keyed = segment != null && segment.endsInKeyBy() && route == 0;
    if (keyed != (partition == Partition.HASH)) {
      at.finding("records are partitioned by hash behind a key_by, and only there");
    } else if (partition == Partition.FORWARD && feeding != parallelism) {
      at.finding("forward between parallelism %d and %d", feeding, parallelism);
    }
    return partition;
  }

  /** Makes findings of segments, and of steps, that have one name. */
  private void checkNames() {
    List<String> segments = new ArrayList<>();
    List<String> steps = new ArrayList<>();
    for (Draft draft : drafts) {
      if (draft.at != null && !draft.name.isEmpty() && segments.contains(draft.name)) {
        draft.at.finding("a second segment of the name \"%s\"", draft.name);
      }
      segments.add(draft.name);
      for (Step step : draft.steps) {
        if (!step.name().isEmpty() && steps.contains(step.name())) {
          draft.at.finding("a second step of the name \"%s\"", step.name());
        }
        steps.add(step.name());
      }
    }
  }

  /** The value of a key that has to be there; null and a finding otherwise. */
  private static Node needed(Node map, String key, String what) {
    Node node = map.find(key);
    if (node == null && map.isMap()) {
      map.finding("%s has no \"%s\"", what, key);
    }
    return node;
  }

  private String neededText(Node map, String key, String what) {
    Node node = needed(map, key, what);
    String text = node == null ? null : reader.text(node, key);
    return text == null ? "" : text;
  }

  private int neededNumber(Node map, String key, String what, int least, int most) {
    Node node = needed(map, key, what);
    return node == null ? least : reader.number(node, key, least, most);
  }

  private boolean neededBool(Node map, String key, String what) {
    Node node = needed(map, key, what);
    if (node == null || (node.isScalar() && node.text.equals("false"))) {
      return false;
    }
    if (!node.isScalar() || !node.text.equals("true")) {
      node.finding("\"%s\" is neither true nor false", key).expected("true or false");
    }
    return true;
  }

  /** Whether a value is a map, or a list; a finding otherwise. */
  private static boolean isKind(Node node, Node.Kind kind, String what) {
    if (node != null && node.kind != kind && node.kind != Node.Kind.BROKEN) {
      node.finding("%s is %s", what, node.describe())
          .expected("%s", kind == Node.Kind.MAP ? "a map" : "a list");
    }
    return node != null && node.kind == kind;
  }

  private static String shortened(Node key) {
    return key.text.length() > 80 ? key.text.substring(0, 80) : key.text;
  }
}
