package io.flinkbridge.job;

import java.io.File;
import java.net.URI;
import java.util.regex.Pattern;
import org.apache.flink.core.fs.Path;

/** Where files are. */
final class Places {
  private static final Pattern SCHEME = Pattern.compile("[A-Za-z][A-Za-z0-9+.-]*:.*");

  private Places() {}

  /**
   * A path or URI as Flink wants it: a path without a scheme is taken from the folder of whoever
   * submits the job.
   */
  static URI uri(String text) {
    return path(text).toUri();
  }

  /** The same as a path. */
  static Path path(String text) {
    return SCHEME.matcher(text).matches()
        ? new Path(text)
        : Path.fromLocalFile(new File(text).getAbsoluteFile());
  }
}
