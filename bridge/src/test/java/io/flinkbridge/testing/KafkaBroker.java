package io.flinkbridge.testing;

import java.io.IOException;
import java.net.BindException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.Uuid;

/**
 * A real Kafka broker in a process of its own: one node that is broker and controller at once
 * (KRaft), from Maven's artifacts.
 *
 * <p>The process is this class's {@code main}, so that the same broker serves tests and {@code make
 * flink-up}. It can be killed and started again on the same data and port. It never outlives the
 * JVM that started it, however that ends: it reads a pipe whose other end is there, unless told
 * that nobody holds one.
 */
public final class KafkaBroker implements AutoCloseable {
  private static final long PATIENCE_MS = 180_000;

  private final Path directory;
  private final int port;
  private Process process;

  /** Makes a broker whose data live in a directory, and starts it. */
  public KafkaBroker(Path directory) throws IOException, InterruptedException {
    this.directory = directory;
    this.port = freePort();
    writeProperties(directory, port, freePort());
    start();
  }

  /** Where clients connect. */
  public String bootstrap() {
    return "127.0.0.1:" + port;
  }

  /** Starts the process, and returns when the broker answers. */
  public void start() throws IOException, InterruptedException {
    List<String> command =
        new ArrayList<>(
            List.of(Path.of(System.getProperty("java.home"), "bin", "java").toString()));
    command.addAll(
        List.of(
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            System.getProperty("java.class.path")));
    command.addAll(
        List.of(KafkaBroker.class.getName(), "serve", directory.toString(), "--with-parent"));
    Path log = directory.resolve("log");
    process =
        new ProcessBuilder(command)
            .redirectErrorStream(true)
            .redirectOutput(ProcessBuilder.Redirect.appendTo(log.toFile()))
            .start();
    try {
      waitUntilServing(bootstrap(), process);
    } catch (IOException e) {
      throw new IOException(e.getMessage() + "\n" + Files.readString(log), e);
    }
  }

  /** Kills the process as a loss of power would, and waits for its end. */
  public void kill() throws InterruptedException {
    process.destroyForcibly().waitFor();
  }

  @Override
  public void close() {
    process.destroyForcibly();
  }

  /** A client for its administration; to be closed. */
  public Admin admin() {
    return admin(bootstrap());
  }

  /** Creates a topic. */
  public void createTopic(String topic, int partitions) throws InterruptedException {
    try (Admin admin = admin()) {
      admin
          .createTopics(List.of(new NewTopic(topic, partitions, (short) 1)))
          .all()
          .get(PATIENCE_MS, TimeUnit.MILLISECONDS);
    } catch (ExecutionException | java.util.concurrent.TimeoutException e) {
      throw new IllegalStateException("cannot create the topic " + topic, e);
    }
  }

  /** A client for the administration of the broker at an address; to be closed. */
  static Admin admin(String bootstrap) {
    return Admin.create(
        Map.of(
            AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap,
            AdminClientConfig.RECONNECT_BACKOFF_MS_CONFIG, 50,
            AdminClientConfig.RECONNECT_BACKOFF_MAX_MS_CONFIG, 200));
  }

  /**
   * Returns once a broker answers at an address; fails when its process (null: any) has ended or
   * time is up.
   */
  static void waitUntilServing(String bootstrap, Process process)
      throws IOException, InterruptedException {
    long deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(PATIENCE_MS);
    try (Admin admin = admin(bootstrap)) {
      while (true) {
        if (process != null && !process.isAlive()) {
          throw new IOException("the Kafka broker ended with " + process.exitValue());
        }
        try {
          admin.describeCluster().nodes().get(1, TimeUnit.SECONDS);
          return;
        } catch (ExecutionException | java.util.concurrent.TimeoutException e) {
          if (System.nanoTime() > deadline) {
            throw new IOException("the Kafka broker at " + bootstrap + " does not answer", e);
          }
        }
      }
    }
  }

  /**
   * A TCP port on the loopback that nobody listens on just now: below those that the kernel gives
   * to clients, who come and go while the broker starts.
   */
  private static int freePort() throws IOException {
    for (int tries = 0; ; tries++) {
      int port = ThreadLocalRandom.current().nextInt(10_000, 32_000);
      try (ServerSocket socket = new ServerSocket(port, 1, InetAddress.getLoopbackAddress())) {
        return socket.getLocalPort();
      } catch (BindException e) {
        if (tries == 100) {
          throw e;
        }
      }
    }
  }

  /**
   * Writes server.properties. Nothing is deleted for its age: that is counted from a record's
   * timestamp, and events may be of any year.
   */
  private static void writeProperties(Path directory, int port, int controller) throws IOException {
    Files.createDirectories(directory);
    Files.write(
        directory.resolve("server.properties"),
        List.of(
            "process.roles=broker,controller",
            "node.id=1",
            "controller.quorum.voters=1@127.0.0.1:" + controller,
            "controller.listener.names=CONTROLLER",
            "listeners=PLAINTEXT://127.0.0.1:" + port + ",CONTROLLER://127.0.0.1:" + controller,
            "log.dirs=" + directory.resolve("data").toAbsolutePath(),
            "offsets.topic.replication.factor=1",
            "offsets.topic.num.partitions=4",
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            "transaction.state.log.num.partitions=4",
            "group.initial.rebalance.delay.ms=0",
            "broker.session.timeout.ms=1000",
            "broker.heartbeat.interval.ms=200",
            "auto.create.topics.enable=false",
            "log.retention.ms=-1",
            "log.cleaner.enable=false"));
  }

  /**
   * {@code serve DIRECTORY --with-parent}: runs the broker whose properties are there, until
   * standard input ends. {@code serve DIRECTORY PORT CONTROLLER_PORT}: writes them first, and runs
   * until it is stopped.
   */
  public static void main(String[] arguments) throws Exception {
    if (arguments.length < 3 || !arguments[0].equals("serve")) {
      throw new IllegalArgumentException(
          "serve DIRECTORY --with-parent, or serve DIRECTORY PORT CONTROLLER_PORT; not: "
              + Arrays.toString(arguments));
    }
    Path directory = Path.of(arguments[1]);
    if (arguments[2].equals("--with-parent")) {
      Thread watch = new Thread(KafkaBroker::leaveWithParent, "parent");
      watch.setDaemon(true);
      watch.start();
    } else {
      writeProperties(directory, Integer.parseInt(arguments[2]), Integer.parseInt(arguments[3]));
    }
    String properties = directory.resolve("server.properties").toString();
    if (!Files.exists(directory.resolve("data"))) {
      int code =
          kafka.tools.StorageTool.execute(
              new String[] {"format", "-t", Uuid.randomUuid().toString(), "-c", properties},
              System.out);
      if (code != 0) {
        throw new IOException("cannot format " + directory);
      }
    }
    kafka.Kafka.main(new String[] {properties});
  }

  /** Ends the process once standard input ends: whoever started it is gone. */
  private static void leaveWithParent() {
    try {
      while (System.in.read() >= 0) {
        continue;
      }
    } catch (IOException e) {
      // Gone all the same.
    }
    Runtime.getRuntime().halt(0);
  }
}
