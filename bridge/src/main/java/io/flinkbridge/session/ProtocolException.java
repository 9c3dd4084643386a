package io.flinkbridge.session;

/** The sidecar said what the contract does not allow. */
public final class ProtocolException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  public ProtocolException(String message) {
    super("the sidecar's answer cannot be: " + message);
  }
}
