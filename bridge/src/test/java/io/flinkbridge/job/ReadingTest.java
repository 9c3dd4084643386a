package io.flinkbridge.job;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.flinkbridge.record.BridgeRecord;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.file.src.reader.StreamFormat;
import org.apache.flink.core.fs.FSDataInputStream;
import org.apache.flink.core.fs.FileSystem;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Event time out of payloads, lines out of files, partitions out of programs. */
class ReadingTest {
  @TempDir Path folder;

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  /**
   * A path is looked up while the payload is read, anything else is a program: both have to say the
   * same.
   */
  @Test
  void pathsSayWhatProgramsSay() throws Exception {
    String[][] cases = {
      {".ts", "{\"ts\": 1700000000000}", "1700000000000"},
      {".ts", "{\"a\": {\"ts\": 1}, \"b\": [1, {\"ts\": 2}], \"ts\": 3.9}", "3"},
      {".a.b", "{\"x\": 0, \"a\": {\"c\": [], \"b\": -1.5}}", "-2"},
      {".ts", "{\"ts\": 9007199254740993}", "9007199254740993"},
      {".ts", "{\"ts\": 0}", "0"},
      {".ts", "{\"ts\": 1e3}", "1000"},
    };
    for (String[] one : cases) {
      assertEquals(Long.parseLong(one[2]), new EventTime("s", one[0]).of(bytes(one[1])), one[1]);
      assertEquals(
          Long.parseLong(one[2]), new EventTime("s", one[0] + " | .").of(bytes(one[1])), one[1]);
    }
    assertEquals(2000, new EventTime("s", ".ts * 1000").of(bytes("{\"ts\": 2}")));
  }

  @Test
  void noTimestampIsAnError() {
    String[] payloads = {
      "",
      "no",
      "[]",
      "{}",
      "{\"ts\": null}",
      "{\"ts\": \"1\"}",
      "{\"ts\": {}}",
      "{\"ts\": 1e30}",
      "{\"ts\":"
    };
    for (String program : new String[] {".ts", ".ts | ."}) {
      for (String payload : payloads) {
        IOException refused =
            assertThrows(
                IOException.class, () -> new EventTime("in", program).of(bytes(payload)), payload);
        assertTrue(
            refused.getMessage().startsWith("source \"in\": no timestamp: "), refused.getMessage());
      }
    }
    IOException two =
        assertThrows(
            IOException.class, () -> new EventTime("in", ".ts, 1").of(bytes("{\"ts\": 1}")));
    assertTrue(two.getMessage().contains("yields 2 values"), two.getMessage());
  }

  private static List<String> read(Path file, long start, long end) throws IOException {
    long length = Files.size(file);
    try (FSDataInputStream stream =
        FileSystem.getLocalFileSystem().open(new org.apache.flink.core.fs.Path(file.toUri()))) {
      stream.seek(start);
      StreamFormat.Reader<BridgeRecord> reader =
          new BytesLineFormat("in", null).createReader(new Configuration(), stream, length, end);
      return texts(reader);
    }
  }

  private static List<String> texts(StreamFormat.Reader<BridgeRecord> reader) throws IOException {
    List<String> texts = new ArrayList<>();
    for (BridgeRecord record = reader.read(); record != null; record = reader.read()) {
      texts.add(record.text());
    }
    return texts;
  }

  @Test
  void linesAreRecords() throws Exception {
    Path file = Files.writeString(folder.resolve("f"), "a\r\n\nb\rc\nlast");
    assertEquals(List.of("a", "", "b\rc", "last"), read(file, 0, Files.size(file)));
    assertEquals(List.of(), read(Files.writeString(folder.resolve("e"), ""), 0, 0));
    Path bytes = Files.write(folder.resolve("b"), new byte[] {(byte) 0xff, '\n'});
    try (FSDataInputStream stream =
        FileSystem.getLocalFileSystem().open(new org.apache.flink.core.fs.Path(bytes.toUri()))) {
      BridgeRecord record =
          new BytesLineFormat("in", null).createReader(new Configuration(), stream, 2, 2).read();
      assertEquals((byte) 0xff, record.payload[0]);
    }
  }

  /** Wherever a file is cut, its parts together are the file. */
  @Test
  void partsTogetherAreTheWhole() throws Exception {
    Random random = new Random(7);
    List<String> lines =
        IntStream.range(0, 300)
            .mapToObj(n -> "x".repeat(random.nextInt(n % 50 == 0 ? 90_000 : 20)) + n)
            .toList();
    Path file = Files.writeString(folder.resolve("f"), String.join("\n", lines) + "\n");
    long length = Files.size(file);
    for (int round = 0; round < 50; round++) {
      long first = random.nextLong(length + 1);
      long second = first + random.nextLong(length - first + 1);
      List<String> all = new ArrayList<>(read(file, 0, first));
      all.addAll(read(file, first, second));
      all.addAll(second == length ? List.of() : read(file, second, length));
      assertEquals(lines, all, "cut at " + first + " and " + second + " of " + length);
    }
  }

  /** A reader that goes on from a checkpoint reads the rest, and nothing twice. */
  @Test
  void readersGoOnAtTheByte() throws Exception {
    List<String> lines = IntStream.range(0, 1000).mapToObj(n -> "line " + n).toList();
    Path file = Files.write(folder.resolve("f"), lines);
    BytesLineFormat format = new BytesLineFormat("in", null);
    Configuration configuration = new Configuration();
    org.apache.flink.core.fs.Path path = new org.apache.flink.core.fs.Path(file.toUri());
    for (int done : new int[] {0, 1, 500, 1000}) {
      long offset;
      try (FSDataInputStream stream = FileSystem.getLocalFileSystem().open(path)) {
        StreamFormat.Reader<BridgeRecord> reader =
            format.createReader(configuration, stream, Files.size(file), Files.size(file));
        for (int i = 0; i < done; i++) {
          reader.read();
        }
        assertEquals(0, reader.getCheckpointedPosition().getRecordsAfterOffset());
        offset = reader.getCheckpointedPosition().getOffset();
      }
      try (FSDataInputStream stream = FileSystem.getLocalFileSystem().open(path)) {
        StreamFormat.Reader<BridgeRecord> reader =
            format.restoreReader(configuration, stream, offset, Files.size(file), Files.size(file));
        assertEquals(lines.subList(done, 1000), texts(reader));
      }
    }
  }

  @Test
  void madeUpRecordsAreWhatTheProgramSays() throws Exception {
    EventTime time = new EventTime("g", ".n");
    BridgeRecord record = new Generated("g", new JqProgram("{n: (. * 2)}"), time).map(21L);
    assertEquals("{\"n\":42}", record.text());
    assertEquals(42, record.timestamp);
    assertEquals("7", new Generated("g", null, null).map(7L).text());
    IOException refused =
        assertThrows(
            IOException.class,
            () -> new Generated("g", new JqProgram("error(\"no\")"), null).map(3L));
    assertTrue(refused.getMessage().startsWith("source \"g\": record 3: "), refused.getMessage());
  }

  @Test
  void partitionsAreNumbersOrHashes() throws Exception {
    PartitionBy by = new PartitionBy(".p");
    assertEquals(5, by.getKey(BridgeRecord.of("{\"p\": 5}")));
    assertEquals(
        by.getKey(BridgeRecord.of("{\"p\": \"x\"}")),
        by.getKey(BridgeRecord.of("{\"q\": 1, \"p\": \"x\"}")));
    assertTrue(by.getKey(BridgeRecord.of("{\"p\": -1}")) >= 0);
    assertTrue(by.getKey(BridgeRecord.of("{}")) >= 0);
    IOException refused =
        assertThrows(IOException.class, () -> by.getKey(BridgeRecord.of("poison")));
    assertTrue(refused.getMessage().contains("no partition by `.p`"), refused.getMessage());
  }
}
