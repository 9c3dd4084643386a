package io.flinkbridge.session;

import java.io.IOException;

/** The session is over, or never began; the message says why in words for people. */
public final class SessionException extends IOException {
  private static final long serialVersionUID = 1L;

  public SessionException(String message) {
    super(message);
  }
}
