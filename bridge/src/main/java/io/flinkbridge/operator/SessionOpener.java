package io.flinkbridge.operator;

import flink_bridge.FlinkBridgeOuterClass.Open;
import flink_bridge.FlinkBridgeOuterClass.OpenAck;
import io.flinkbridge.session.Answer;
import io.flinkbridge.session.ProtocolException;
import io.flinkbridge.session.Session;
import io.flinkbridge.session.SessionException;
import io.grpc.Status;
import java.time.Duration;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import org.apache.flink.util.TimeUtils;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Opens a session, and waits for a sidecar that is not there yet. */
final class SessionOpener {
  private static final Logger LOG = LoggerFactory.getLogger(SessionOpener.class);
  private static final Duration RETRY_FIRST = Duration.ofMillis(50);
  private static final Duration RETRY_MAX = Duration.ofSeconds(1);
  private static final Duration LOG_EVERY = Duration.ofSeconds(10);

  private final String name;
  private final String address;
  private final Duration patience;
  private final Duration answerTimeout;
  private volatile boolean isWaiting;

  /**
   * Waits {@code patience} for a sidecar, and {@code answerTimeout} for what one that is there says
   * to Open.
   */
  SessionOpener(String name, String address, Duration patience, Duration answerTimeout) {
    this.name = name;
    this.address = address;
    this.patience = patience;
    this.answerTimeout = answerTimeout;
  }

  /** Whether there is no sidecar yet; for the gauge. */
  boolean isWaiting() {
    return isWaiting;
  }

  /** A session, and what its sidecar said to Open. */
  record Opened(Session session, OpenAck ack) {}

  /** Opens a session; {@code request} makes each try's Open, for each has a token of its own. */
  Opened open(Supplier<Open> request, LongSupplier clock)
      throws SessionException, InterruptedException {
    long begin = System.nanoTime();
    long deadline = begin + patience.toNanos();
    long logAt = begin;
    Duration pause = RETRY_FIRST;
    String why = "the connection did not come about";
    while (true) {
      Session session = new Session(address, clock);
      boolean isOpen = false;
      try {
        if (!session.awaitReady(deadline)) {
          throw new SessionException(absent(why));
        }
        boolean hasWaited = isWaiting;
        isWaiting = false;
        Opened opened = new Opened(session, sendOpen(session, request.get()));
        isOpen = true;
        if (hasWaited) {
          LOG.info(
              "{}: the sidecar at {} is there after {} ms",
              name,
              address,
              (System.nanoTime() - begin) / 1_000_000);
        }
        return opened;
      } catch (ProtocolException e) {
        throw new SessionException(name + ": " + e.getMessage());
      } catch (SessionException e) {
        if (!isWorthAnotherTry(session)) {
          throw new SessionException(name + ": " + e.getMessage());
        }
        why = e.getMessage();
        if (deadline - System.nanoTime() <= 0) {
          throw new SessionException(name + ": " + absent(why));
        }
        if (System.nanoTime() - logAt >= 0) {
          LOG.warn(
              "{}: no sidecar at {} yet, waiting for up to {} ({})",
              name,
              address,
              TimeUtils.formatWithHighestUnit(patience),
              why);
          logAt = System.nanoTime() + LOG_EVERY.toNanos();
        }
      } finally {
        if (!isOpen) {
          session.close();
        }
      }
      isWaiting = true;
      Thread.sleep(
          Math.max(1, Math.min(pause.toMillis(), (deadline - System.nanoTime()) / 1_000_000)));
      pause = pause.multipliedBy(2).compareTo(RETRY_MAX) > 0 ? RETRY_MAX : pause.multipliedBy(2);
    }
  }

  private String absent(String why) {
    return "no sidecar at "
        + address
        + " for "
        + TimeUtils.formatWithHighestUnit(patience)
        + "; start bridged there, or raise sidecar_wait ("
        + why
        + ")";
  }

  /** Nobody was there, and so nothing was refused. */
  private static boolean isWorthAnotherTry(Session session) {
    Status status = session.status();
    return status != null && status.getCode() == Status.Code.UNAVAILABLE;
  }

  /** Asks a sidecar that is there. */
  private OpenAck sendOpen(Session session, Open request)
      throws SessionException, InterruptedException {
    session.sendOpen(request);
    Answer answer =
        session.await(Answer.Kind.OPEN_ACK, System.nanoTime() + answerTimeout.toNanos());
    if (answer == null) {
      throw new SessionException(
          "the sidecar at "
              + address
              + " did not answer Open within "
              + answerTimeout.toMillis()
              + " ms");
    }
    return answer.parse(OpenAck.parser());
  }
}
