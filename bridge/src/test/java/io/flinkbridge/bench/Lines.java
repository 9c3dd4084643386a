package io.flinkbridge.bench;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.flink.api.connector.source.SourceReaderContext;
import org.apache.flink.connector.datagen.source.GeneratorFunction;

/** The lines of a file, over and over. */
final class Lines implements GeneratorFunction<Long, String> {
  private static final long serialVersionUID = 1L;

  private final String file;
  private transient String[] lines;

  Lines(String file) {
    this.file = file;
  }

  @Override
  public void open(SourceReaderContext context) {
    try {
      lines = Files.readAllLines(Path.of(file)).toArray(new String[0]);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @Override
  public String map(Long index) {
    return lines[(int) (index % lines.length)];
  }
}
