package io.flinkbridge.operator;

import io.flinkbridge.record.KeyHash;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Random;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.common.typeutils.base.IntSerializer;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.runtime.state.StateBackend;
import org.apache.flink.runtime.state.hashmap.HashMapStateBackend;
import org.apache.flink.runtime.state.storage.FileSystemCheckpointStorage;
import org.apache.flink.state.rocksdb.EmbeddedRocksDBStateBackend;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.KeyedOneInputStreamOperatorTestHarness;
import org.apache.flink.util.FileUtils;

/**
 * What a number of buckets per key group costs, on both backends: docs/flink-operator.md has the
 * figures. Not a test; run its main with the number of entries, then numbers of buckets. Times are
 * those of the task's thread, so a busy machine changes them little.
 */
final class BucketsBench {
  private static final int MAX_PARALLELISM = 128;
  private static final int VALUE_BYTES = 100;
  private static final int TOUCHED = 10_000;
  private static final Path FOLDER = folder();
  private static final ThreadMXBean THREADS = ManagementFactory.getThreadMXBean();

  private BucketsBench() {}

  /** For checkpoints; gone at the end. */
  private static Path folder() {
    try {
      Path folder = Files.createTempDirectory("buckets");
      Runtime.getRuntime()
          .addShutdownHook(new Thread(() -> FileUtils.deleteDirectoryQuietly(folder.toFile())));
      return folder;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  public static void main(String[] args) throws Exception {
    int entries = Integer.parseInt(args[0]);
    System.out.println(
        "backend     buckets  put ns  10k puts after a snapshot ms  all puts after one ns  sync snapshot ms  read ns");
    for (int i = 1; i < args.length; i++) {
      int perGroup = Integer.parseInt(args[i]);
      measure("hashmap", new HashMapStateBackend(), entries, perGroup);
      measure("rocksdb", rocksdb(), entries, perGroup);
    }
  }

  /** With the write buffers of a task that has memory enough. */
  private static StateBackend rocksdb() {
    EmbeddedRocksDBStateBackend backend = new EmbeddedRocksDBStateBackend(true);
    backend.getMemoryConfiguration().setUseManagedMemory(false);
    return backend;
  }

  private static void measure(String name, StateBackend backend, int entries, int perGroup)
      throws Exception {
    OperatorSubtaskState snapshot;
    double put;
    double touch;
    double all;
    double sync;
    try (var harness = harness(backend)) {
      harness.open();
      KeyedTable table = table(harness, perGroup);
      put = cpu(() -> putAll(table, entries, 0)) / (double) entries;
      harness.snapshot(1, 1);
      Random random = new Random(1);
      touch =
          cpu(
                  () -> {
                    for (int i = 0; i < TOUCHED; i++) {
                      put(table, random.nextInt(entries), 1);
                    }
                  })
              / 1e6;
      harness.snapshot(2, 2);
      all = cpu(() -> putAll(table, entries, 2)) / (double) entries;
      long begin = System.nanoTime();
      snapshot = harness.snapshot(3, 3);
      sync = (System.nanoTime() - begin) / 1e6;
    }
    try (var harness = harness(backend)) {
      harness.initializeState(snapshot);
      harness.open();
      KeyedTable table = table(harness, perGroup);
      long[] seen = new long[1];
      double read =
          cpu(
                  () ->
                      table.readAll(
                          (key, value) -> {
                            seen[0]++;
                            return true;
                          }))
              / (double) entries;
      if (seen[0] != entries) {
        throw new IllegalStateException(seen[0] + " entries of " + entries);
      }
      System.out.printf(
          "%-10s %8d %7.0f %29.1f %22.0f %17.0f %8.0f%n",
          name, perGroup, put, touch, all, sync, read);
    }
  }

  private static void putAll(KeyedTable table, int entries, int round) throws Exception {
    for (int i = 0; i < entries; i++) {
      put(table, i, round);
    }
  }

  private static void put(KeyedTable table, int number, int round) throws Exception {
    byte[] key = ("user-" + number).getBytes(StandardCharsets.UTF_8);
    byte[] value = new byte[VALUE_BYTES];
    value[0] = (byte) round;
    table.put(StateKey.of(1, KeyHash.of(key), key, 0, key.length, key.length, 0), value);
  }

  private interface Work {
    void run() throws Exception;
  }

  private static long cpu(Work work) throws Exception {
    long begin = THREADS.getCurrentThreadCpuTime();
    work.run();
    return THREADS.getCurrentThreadCpuTime() - begin;
  }

  private static KeyedTable table(
      KeyedOneInputStreamOperatorTestHarness<Integer, Integer, Integer> harness, int perGroup)
      throws Exception {
    AbstractStreamOperator<Integer> probe = harness.getOperator();
    return new KeyedTable(probe.getKeyedStateBackend(), probe.getKeyedStateStore(), perGroup);
  }

  private static KeyedOneInputStreamOperatorTestHarness<Integer, Integer, Integer> harness(
      StateBackend backend) throws Exception {
    var harness =
        new KeyedOneInputStreamOperatorTestHarness<Integer, Integer, Integer>(
            new Probe(), number -> number, Types.INT, MAX_PARALLELISM, 1, 0);
    harness.setStateBackend(backend);
    harness.setCheckpointStorage(new FileSystemCheckpointStorage(FOLDER.toUri()));
    harness.setup(IntSerializer.INSTANCE);
    return harness;
  }

  /** An operator that is nothing but its state. */
  private static final class Probe extends AbstractStreamOperator<Integer>
      implements OneInputStreamOperator<Integer, Integer> {
    private static final long serialVersionUID = 1L;

    @Override
    public void processElement(StreamRecord<Integer> element) {}
  }
}
