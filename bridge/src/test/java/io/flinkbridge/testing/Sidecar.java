package io.flinkbridge.testing;

import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.BooleanSupplier;
import java.util.stream.Stream;
import org.yaml.snakeyaml.Yaml;

/**
 * A real {@code bridged} for a test: compiles a pipeline, starts the sidecar on a Unix socket in a
 * folder of its own, and takes both away again. The binaries are those of the repository at the
 * system property {@code bridge.root}, variant {@code bridge.variant}.
 */
public final class Sidecar implements AutoCloseable {
  private static final Duration PATIENCE = Duration.ofSeconds(120);

  private final Path folder;
  private final Path descriptor;
  private final int slots;
  private final List<String> flags;
  private Process process;

  private Sidecar(Path folder, Path descriptor, int slots, List<String> flags) {
    this.folder = folder;
    this.descriptor = descriptor;
    this.slots = slots;
    this.flags = flags;
  }

  /** Compiles a pipeline, starts a sidecar for it, and waits until it serves. */
  public static Sidecar start(String pipeline, int slots, String... flags) throws IOException {
    Sidecar sidecar = prepare(pipeline, slots, flags);
    sidecar.start();
    return sidecar;
  }

  /** The same without starting it. */
  public static Sidecar prepare(String pipeline, int slots, String... flags) throws IOException {
    Path folder = Files.createTempDirectory("b"); // short: a socket's path has 107 bytes
    return new Sidecar(folder, compile(folder, pipeline), slots, List.of(flags));
  }

  /** A binary of the build. */
  public static Path binary(String name) {
    String root = System.getProperty("bridge.root", "..");
    return Path.of(root, "build", System.getProperty("bridge.variant", "release"), name)
        .toAbsolutePath()
        .normalize();
  }

  /** Compiles the text of a pipeline into a folder; returns the descriptor. */
  public static Path compile(Path folder, String pipeline) throws IOException {
    Path source = Files.writeString(folder.resolve("pipeline.yaml"), pipeline);
    Path target = folder.resolve("descriptor.yaml");
    Process compiler =
        new ProcessBuilder(
                binary("bridgectl").toString(),
                "compile",
                source.toString(),
                "-o",
                target.toString())
            .redirectErrorStream(true)
            .start();
    String said = new String(compiler.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    try {
      if (compiler.waitFor() != 0) {
        throw new IOException("bridgectl compile: " + said);
      }
    } catch (InterruptedException e) {
      compiler.destroyForcibly();
      Thread.currentThread().interrupt();
      throw new IOException(e);
    }
    return target;
  }

  /** Starts it, or starts it again, and waits until it serves. */
  public void start() throws IOException {
    List<String> command = new ArrayList<>(List.of(binary("bridged").toString()));
    command.addAll(
        List.of("--descriptor", descriptor.toString(), "--slots", String.valueOf(slots)));
    command.addAll(List.of("--listen", address(), "--stats", statsPath().toString()));
    command.addAll(flags);
    Files.deleteIfExists(logPath());
    File log = logPath().toFile();
    process =
        new ProcessBuilder(command)
            .redirectErrorStream(true)
            .redirectOutput(log)
            .directory(folder.toFile())
            .start();
    waitUntil(
        "bridged to serve",
        () -> {
          if (!process.isAlive() && !log().contains("serving pipeline")) {
            throw new IllegalStateException(
                "bridged left with " + process.exitValue() + ":\n" + log());
          }
          return log().contains("serving pipeline");
        });
  }

  /** Where it listens, as the job's settings and bridged's flag have it. */
  public String address() {
    return "unix:" + folder.resolve("s");
  }

  public Path descriptorPath() {
    return descriptor;
  }

  /** A folder that is gone with the sidecar. */
  public Path folder() {
    return folder;
  }

  /** What bridgectl wrote, as it stands in the file. */
  public Map<String, Object> descriptor() {
    try {
      return new Yaml().load(Files.readString(descriptor));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** The config of a segment, as the descriptor has it. */
  @SuppressWarnings("unchecked")
  public Map<String, Object> segment(int id) {
    List<Map<String, Object>> steps = (List<Map<String, Object>>) descriptor().get("steps");
    return (Map<String, Object>) steps.get(id).get("config");
  }

  /** The name of a segment. */
  @SuppressWarnings("unchecked")
  public String segmentName(int id) {
    return (String)
        ((List<Map<String, Object>>) descriptor().get("steps")).get(id).get("step_name");
  }

  /** Everything it has written to its log so far. */
  public String log() {
    try {
      return Files.exists(logPath()) ? Files.readString(logPath()) : "";
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** What the stats socket answers to a command, such as {@code slots json}. */
  public String stats(String command) throws IOException {
    try (SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX)) {
      channel.connect(UnixDomainSocketAddress.of(statsPath()));
      channel.write(ByteBuffer.wrap((command + "\n").getBytes(StandardCharsets.UTF_8)));
      channel.shutdownOutput();
      return new String(Channels.newInputStream(channel).readAllBytes(), StandardCharsets.UTF_8);
    }
  }

  /**
   * Has all slots taken over by processes with the code of a pipeline, and waits for the end of
   * that.
   */
  public void reload(String pipeline) throws IOException {
    compile(folder, pipeline);
    String before = stats("stats json");
    long reloads = counter(before, "reloads");
    stats("reload");
    waitUntil(
        "the reload to be done",
        () -> {
          try {
            return counter(stats("stats json"), "reloads") > reloads;
          } catch (IOException e) {
            throw new UncheckedIOException(e);
          }
        });
  }

  /** A counter of the supervisor. */
  @SuppressWarnings("unchecked")
  private static long counter(String stats, String name) {
    Map<String, Object> all = new Yaml().load(stats);
    return ((Number) ((Map<String, Object>) all.get("supervisor")).get(name)).longValue();
  }

  /**
   * The process id of a child by its role: {@code front}, {@code worker 0}; throws when there is
   * none just now.
   */
  public long pid(String role) {
    return find(role)
        .orElseThrow(() -> new IllegalStateException("bridged has no " + role + " just now"));
  }

  private OptionalLong find(String role) {
    return process
        .descendants()
        .filter(child -> roleOf(child.pid()).equals(role))
        .mapToLong(ProcessHandle::pid)
        .findFirst();
  }

  public long supervisorPid() {
    return process.pid();
  }

  /** A process is called bridged-front, bridged-w0 (worker 0), bridged-h0 (its heir). */
  private static String roleOf(long pid) {
    try {
      return Files.readString(Path.of("/proc", String.valueOf(pid), "comm"))
          .strip()
          .replaceFirst("^bridged-", "")
          .replaceFirst("^w(\\d+)$", "worker $1")
          .replaceFirst("^h(\\d+)$", "heir $1");
    } catch (IOException e) {
      return "";
    }
  }

  /** The memory of all its processes in KiB, what they share counted once. */
  public long memoryKib() {
    return Stream.concat(Stream.of(process.toHandle()), process.descendants())
        .mapToLong(one -> shareKib(one.pid()))
        .sum();
  }

  /** A process's share of the memory that it has mapped; 0: it has gone. */
  private static long shareKib(long pid) {
    try (Stream<String> lines =
        Files.lines(Path.of("/proc", String.valueOf(pid), "smaps_rollup"))) {
      return lines
          .filter(line -> line.startsWith("Pss:"))
          .mapToLong(line -> Long.parseLong(line.replaceAll("[^0-9]", "")))
          .sum();
    } catch (IOException | UncheckedIOException e) {
      return 0;
    }
  }

  /** Kills the worker of a slot, once there is one and an heir behind it; the heir takes over. */
  public void killWorker(int slot) throws IOException {
    waitUntil("an heir of slot " + slot, () -> find("heir " + slot).isPresent());
    kill("worker " + slot);
  }

  /** Kills a child once it is there; it may die by itself meanwhile. */
  private void kill(String role) throws IOException {
    AtomicReference<OptionalLong> pid = new AtomicReference<>();
    waitUntil(
        "a " + role,
        () -> {
          pid.set(find(role));
          return pid.get().isPresent();
        });
    signal("KILL", pid.get().getAsLong());
  }

  /** Kills the front: all sessions end, and the supervisor starts another. */
  public void killFront() throws IOException {
    kill("front");
  }

  /** Kills the supervisor, and with it everything. */
  public void killSupervisor() throws IOException {
    signal("KILL", process.pid());
    waitUntil("all of bridged to be gone", () -> !process.isAlive() && Files.exists(logPath()));
  }

  /** Sends a signal to one of its processes. */
  public void signal(String name, long pid) throws IOException {
    // The shell's own: a bare machine has no program of that name.
    Process kill = new ProcessBuilder("sh", "-c", "kill -" + name + " " + pid).start();
    try {
      kill.waitFor();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException(e);
    }
  }

  /** Stops it in order. */
  public void stop() {
    if (process == null) {
      return;
    }
    List<ProcessHandle> children = process.descendants().toList();
    process.destroy();
    try {
      if (!process.waitFor(PATIENCE.toSeconds(), TimeUnit.SECONDS)) {
        process.destroyForcibly();
        throw new IllegalStateException("bridged did not stop:\n" + log());
      }
    } catch (InterruptedException e) {
      process.destroyForcibly();
      Thread.currentThread().interrupt();
    }
    children.forEach(ProcessHandle::destroyForcibly);
  }

  @Override
  public void close() throws IOException {
    stop();
    try (Stream<Path> files = Files.walk(folder)) {
      for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
        Files.deleteIfExists(file);
      }
    }
  }

  /** Asks until it is so; for what must come, never as a measure. */
  public static void waitUntil(String what, BooleanSupplier condition) {
    long deadline = System.nanoTime() + PATIENCE.toNanos();
    while (!condition.getAsBoolean()) {
      if (System.nanoTime() - deadline > 0) {
        throw new IllegalStateException("waited " + PATIENCE.toSeconds() + " s for " + what);
      }
      try {
        Thread.sleep(5);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new IllegalStateException(e);
      }
    }
  }

  private Path statsPath() {
    return folder.resolve("stats");
  }

  private Path logPath() {
    return folder.resolve("log");
  }
}
