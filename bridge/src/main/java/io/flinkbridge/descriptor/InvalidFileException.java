package io.flinkbridge.descriptor;

/** A file that cannot be used: its message lists what is wrong with it. */
public final class InvalidFileException extends Exception {
  private final transient Findings findings;

  InvalidFileException(Findings findings) {
    super(findings.toString());
    this.findings = findings;
  }

  /** What is wrong. */
  public Findings findings() {
    return findings;
  }
}
