package io.flinkbridge.proof;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.flinkbridge.testing.Cluster;
import io.flinkbridge.testing.KafkaBroker;
import io.flinkbridge.testing.Sidecar;
import io.flinkbridge.testing.Size;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * Exactly once, whatever breaks. Something is broken only while work is under way, which is seen by
 * what has been committed and what has not.
 */
class ProofTest {
  private static KafkaBroker broker;
  private static Cluster cluster;

  @TempDir private Path folder;

  @BeforeAll
  static void start() throws Exception {
    broker = new KafkaBroker(Files.createTempDirectory("kafka"));
    cluster = new Cluster(2, 2);
  }

  @AfterAll
  static void stop() throws Exception {
    cluster.close();
    broker.close();
  }

  private Scenario scenario(String name, int poisonPercent) throws Exception {
    return scenario(
        name, new Workload(name.hashCode(), Size.choose(20_000, 200_000), poisonPercent, 0), "");
  }

  private Scenario scenario(String name, Workload workload, String prelude) throws Exception {
    return new Scenario(broker, cluster, folder, name, workload, prelude);
  }

  @Test
  void nothingBreaksAndPoisonIsPutAside() throws Exception {
    try (Scenario scenario = scenario("poison", 5)) {
      scenario.start();
      scenario.finish();
    }
  }

  @Test
  void workersAreKilledAllTheTime() throws Exception {
    ScheduledExecutorService killer = Executors.newSingleThreadScheduledExecutor();
    AtomicInteger kills = new AtomicInteger();
    try (Scenario scenario = scenario("workers", 0)) {
      scenario.start();
      scenario.send(0.1);
      ScheduledFuture<?> killing =
          killer.scheduleWithFixedDelay(
              () -> {
                try {
                  scenario.sidecar.killWorker(kills.getAndIncrement() % 4);
                } catch (Exception e) {
                  throw new IllegalStateException(e);
                }
              },
              0,
              200,
              TimeUnit.MILLISECONDS);
      for (int tenth = 2; tenth < 10; tenth++) {
        int before = kills.get();
        scenario.send(tenth / 10.0);
        Sidecar.waitUntil("another kill", () -> kills.get() > before || killing.isDone());
      }
      assertTrue(!killing.isDone(), "killing has gone on");
      killing.cancel(false);
      assertEquals(0, scenario.job().restarts(), () -> scenario.job().failure());
      scenario.finish();
    } finally {
      killer.shutdownNow();
    }
  }

  @Test
  void theFrontIsKilledInTheMiddle() throws Exception {
    try (Scenario scenario = scenario("front", 0)) {
      scenario.start();
      scenario.send(0.3);
      scenario.sendOnly(0.8);
      scenario.sidecar.killFront();
      Sidecar.waitUntil("the job to be restarted", () -> scenario.job().restarts() > 0);
      scenario.finish();
    }
  }

  @Test
  void theSupervisorIsKilledDuringACheckpoint() throws Exception {
    try (Scenario scenario = scenario("supervisor", 0)) {
      scenario.start();
      scenario.send(0.3);
      // Stopped workers cannot answer a barrier: a checkpoint that has begun stays under way.
      for (int slot = 0; slot < 4; slot++) {
        scenario.sidecar.signal("STOP", scenario.sidecar.pid("worker " + slot));
      }
      scenario.sendOnly(0.6);
      Sidecar.waitUntil(
          "a checkpoint that is under way",
          () -> scenario.job().checkpoints().getNumberOfInProgressCheckpoints() > 0);
      scenario.sidecar.killSupervisor();
      Sidecar.waitUntil("the job to be restarted", () -> scenario.job().restarts() > 0);
      scenario.sidecar.start();
      scenario.finish();
    }
  }

  @Test
  void aTaskManagerIsLostAndReplaced() throws Exception {
    try (Scenario scenario = scenario("taskmanager", 0)) {
      scenario.start();
      scenario.send(0.3);
      scenario.sendOnly(0.8);
      cluster.replaceTaskManager(cluster.newestTaskManager());
      cluster.replaceTaskManager(0);
      Sidecar.waitUntil("the job to be restarted", () -> scenario.job().restarts() > 0);
      scenario.finish();
    }
  }

  @Test
  void savepointsAndOtherParallelisms() throws Exception {
    try (Scenario scenario = scenario("rescale", 0)) {
      scenario.start();
      scenario.send(0.3);
      scenario.rescale(4);
      scenario.send(0.6);
      scenario.rescale(1);
      scenario.finish();
      assertEquals(0, scenario.job().restarts(), () -> scenario.job().failure());
    }
  }

  @Test
  void newCodeIsLoadedUnderLoad() throws Exception {
    try (Scenario scenario = scenario("reload", 0)) {
      scenario.start();
      scenario.send(0.2);
      for (int round = 1; round <= 6; round++) {
        scenario.sendOnly(0.2 + round / 10.0);
        scenario.sidecar.reload(scenario.pipeline(2, 100 + round % 2));
      }
      assertEquals(0, scenario.job().restarts(), () -> scenario.job().failure());
      scenario.finish();
    }
  }

  @Test
  void theBrokerIsKilledAndComesBack() throws Exception {
    try (Scenario scenario = scenario("broker", 0)) {
      scenario.start();
      scenario.send(0.3);
      scenario.sendOnly(0.8);
      broker.kill();
      broker.start();
      scenario.finish();
    }
  }

  /**
   * A step that takes far longer than its input takes to come, and input of many times what may be
   * on its way: what cannot be worked on yet stays in Kafka.
   */
  @Test
  void overloadIsHeldBackAtTheSource() throws Exception {
    Workload workload = new Workload(9, Size.choose(4_000, 40_000), 0, 10_000);
    // Some seconds of work in all: so much that it takes several checkpoints on any machine.
    String slow =
        "- { name: slow, kind: filter, program: \"[range(%d)] | length > 0\" }"
            .formatted(Size.choose(5_000, 1_000));
    try (Scenario scenario = scenario("overload", workload, slow)) {
      scenario.start();
      scenario.sendOnly(1);
      scenario.awaitCommitted(0.1);
      long early = scenario.sidecar.memoryKib();
      assertTrue(scenario.isBehind(), "there is more input than has been worked on");
      scenario.awaitCommitted(0.5);
      long late = scenario.sidecar.memoryKib();
      assertTrue(scenario.isBehind(), "there is still more");
      assertTrue(late < early + 48 * 1024, "KiB of memory: " + early + ", later " + late);
      assertTrue(scenario.unread() > 0, "what has not been read lies in Kafka");
      assertEquals(0, scenario.job().restarts(), () -> scenario.job().failure());
      scenario.finish();
    }
  }
}
