package io.flinkbridge.session;

import com.google.protobuf.MessageLite;
import flink_bridge.FlinkBridgeOuterClass.Barrier;
import flink_bridge.FlinkBridgeOuterClass.Close;
import flink_bridge.FlinkBridgeOuterClass.EndInput;
import flink_bridge.FlinkBridgeOuterClass.Error;
import flink_bridge.FlinkBridgeOuterClass.Open;
import flink_bridge.FlinkBridgeOuterClass.RestoreEnd;
import flink_bridge.FlinkBridgeOuterClass.TimerTick;
import flink_bridge.FlinkBridgeOuterClass.Watermark;
import flink_bridge.FlinkBridgeOuterClass.WatermarkStatus;
import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.channel.AdaptiveRecvByteBufAllocator;
import io.grpc.netty.shaded.io.netty.channel.ChannelOption;
import java.time.Duration;
import java.util.Arrays;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.LongSupplier;
import org.jspecify.annotations.Nullable;

/**
 * One Session stream. It numbers and times what is sent, and keeps what has come until somebody
 * asks for it.
 *
 * <p>All methods belong to one thread (the task's). gRPC's threads only read what comes, put it
 * into {@link #inbox} and run the wake-up; they never see state of a session. Each session has a
 * connection of its own: over a shared one, HTTP/2's window of the connection would let a session
 * whose results nobody takes hold up all others.
 *
 * <p>A message is copied out of its array while {@code sendMessage} runs, if the transport is
 * ready; before that it may be kept for later, and so gets an array of its own.
 */
public final class Session implements AutoCloseable {
  /** What a wake-up without news in the inbox is about: more may be sent. */
  private static final Object READY = new Object();

  private static final int INBOUND_MAX = 64 << 20;
  private static final int MESSAGES_AHEAD = 16;
  private static final int END_SECONDS = 10;
  private static final int ON_READY_BYTES = 512 << 10;
  private static final int READ_FIRST = 4 << 10;
  private static final int READ_MAX = 256 << 10; // as much as a message has under load; else 64 KB
  private static final Runnable NOBODY = () -> {};

  private final String address;
  private final LongSupplier clock;
  private final ManagedChannel channel;
  private final ClientCall<Outgoing, Object> call;
  private final LinkedBlockingQueue<Object> inbox = new LinkedBlockingQueue<>();
  private final AtomicBoolean isAwake = new AtomicBoolean();
  private volatile Runnable wakeup = NOBODY;
  private long seq;
  private long time;
  private volatile @Nullable Error lastError;
  private volatile long lastArrival = System.nanoTime();
  private volatile boolean isClosed;

  /** Begins to connect; {@code clock} is the processing time that messages carry. */
  public Session(String address, LongSupplier clock) {
    this.address = address;
    this.clock = clock;
    ManagedChannelBuilder<?> builder =
        Grpc.newChannelBuilder(target(address), InsecureChannelCredentials.create())
            .overrideAuthority("localhost")
            .directExecutor()
            .disableRetry()
            .maxInboundMessageSize(INBOUND_MAX);
    if (builder instanceof NettyChannelBuilder netty) {
      netty.withOption(
          ChannelOption.SO_KEEPALIVE, null); // set by gRPC, and Unix sockets warn of it
      netty.withOption(
          ChannelOption.RCVBUF_ALLOCATOR,
          new AdaptiveRecvByteBufAllocator(READ_FIRST, READ_FIRST, READ_MAX));
      if (address.startsWith("unix:")) { // TCP finds its own size
        netty.withOption(ChannelOption.SO_SNDBUF, ON_READY_BYTES);
      }
    }
    channel = builder.build();
    call =
        channel.newCall(
            Outgoing.method(new AnswerReader()),
            CallOptions.DEFAULT.withOnReadyThreshold(ON_READY_BYTES));
    call.start(new Listener(), new Metadata());
    call.request(MESSAGES_AHEAD);
  }

  /** gRPC's name of an address as the sidecar writes it. */
  private static String target(String address) {
    return address.startsWith("unix:/") && !address.startsWith("unix://")
        ? "unix://" + address.substring("unix:".length())
        : address;
  }

  /**
   * Has this run, by any thread, when there is something to {@link #poll}, or when more may be
   * sent; at most once before the next poll.
   */
  public void setWakeup(Runnable runnable) {
    wakeup = runnable;
    isAwake.set(false);
    if (!inbox.isEmpty()) {
      wake();
    }
  }

  /** Whether the transport takes more. */
  public boolean isReady() {
    return call.isReady();
  }

  /** What the sidecar last complained about. */
  public @Nullable Error lastError() {
    return lastError;
  }

  /** Whether a message has come that was not polled yet. Any thread. */
  public boolean hasInput() {
    return !inbox.isEmpty();
  }

  /** When the last message came, by {@link System#nanoTime}. Any thread. */
  public long lastArrival() {
    return lastArrival;
  }

  // ---- What is sent ----

  /** Sends a batch, and empties it; returns its seq. */
  public long send(Batch batch) {
    long sent = send(batch.finish(nextSeq(), now()));
    batch.reset();
    return sent;
  }

  /** Sends a part of the state to restore, and empties it. */
  public long send(RestoreChunk chunk) {
    long sent = send(chunk.finish(nextSeq(), now()));
    chunk.reset();
    return sent;
  }

  public long sendOpen(Open open) {
    return send(3, open);
  }

  public long sendRestoreEnd(long entries) {
    return send(5, RestoreEnd.newBuilder().setEntries(entries).build());
  }

  public long sendWatermark(long timestamp) {
    return send(7, Watermark.newBuilder().setTimestamp(timestamp).build());
  }

  public long sendWatermarkStatus(boolean isIdle) {
    return send(8, WatermarkStatus.newBuilder().setIdle(isIdle).build());
  }

  public long sendTimerTick() {
    return send(9, TimerTick.getDefaultInstance());
  }

  public long sendBarrier(long checkpoint) {
    return send(10, Barrier.newBuilder().setCheckpointId(checkpoint).build());
  }

  public long sendEndInput() {
    return send(11, EndInput.getDefaultInstance());
  }

  private long nextSeq() {
    return ++seq;
  }

  /** The clock, which never goes back. */
  private long now() {
    time = Math.max(time, clock.getAsLong());
    return time;
  }

  private long send(int kind, MessageLite content) {
    byte[] bytes = content.toByteArray();
    WireWriter writer = new WireWriter(bytes.length);
    writer.putBytes(bytes);
    writer.finish(nextSeq(), now(), kind);
    return send(writer);
  }

  private long send(WireWriter writer) {
    byte[] array = writer.array();
    int begin = writer.begin();
    if (!call.isReady()) {
      array = Arrays.copyOfRange(array, begin, begin + writer.messageSize());
      begin = 0;
    }
    call.sendMessage(new Outgoing(array, begin, writer.messageSize()));
    return seq;
  }

  // ---- What comes ----

  /**
   * The next answer, or null when there is none now. Throws when the session is over, with what the
   * sidecar last said.
   */
  public @Nullable Answer poll() throws SessionException {
    isAwake.set(false);
    while (true) {
      Object next = inbox.poll();
      if (next == null) {
        return null;
      }
      if (next != READY) {
        return take(next);
      }
    }
  }

  /** The same, but waits for it; null when the time is over, or when more may be sent. */
  public @Nullable Answer await(Duration time) throws SessionException, InterruptedException {
    Object next = inbox.poll(time.toNanos(), TimeUnit.NANOSECONDS);
    return next == null || next == READY ? null : take(next);
  }

  /**
   * Waits until the transport takes more, for which the sidecar says nothing but errors that are
   * not fatal; false when it does not before the deadline, by {@link System#nanoTime}.
   */
  public boolean awaitReady(long deadline) throws SessionException, InterruptedException {
    while (!isReady() && deadline - System.nanoTime() > 0) {
      Answer answer = await(Duration.ofNanos(deadline - System.nanoTime()));
      if (answer != null) {
        passOver(answer, "nothing");
      }
    }
    return isReady();
  }

  /**
   * Waits for the answer of a kind, before which nothing but errors that are not fatal can come;
   * null when it does not come before the deadline, by {@link System#nanoTime}.
   */
  public @Nullable Answer await(Answer.Kind kind, long deadline)
      throws SessionException, InterruptedException {
    while (deadline - System.nanoTime() > 0) {
      Answer answer = await(Duration.ofNanos(deadline - System.nanoTime()));
      if (answer != null && answer.kind() == kind) {
        return answer;
      } else if (answer != null) {
        passOver(answer, kind.name());
      }
    }
    return null;
  }

  /** An error is kept, and told when the session ends; anything else should not be there. */
  private static void passOver(Answer answer, String expected) {
    if (answer.kind() != Answer.Kind.ERROR) {
      throw new ProtocolException(answer.kind() + " in place of " + expected);
    }
  }

  private Answer take(Object next) throws SessionException {
    if (next instanceof Status status) {
      inbox.add(next); // whoever asks again gets the same answer
      throw new SessionException(describe(status, lastError));
    }
    call.request(1);
    if (next instanceof ProtocolException damage) {
      throw damage;
    }
    Answer answer = (Answer) next;
    if (answer.kind() == Answer.Kind.ERROR) {
      lastError = answer.parse(Error.parser());
    }
    return answer;
  }

  /** The status that the stream ended with, once it is the next thing to be polled; else null. */
  public @Nullable Status status() {
    return inbox.peek() instanceof Status status ? status : null;
  }

  /**
   * Why the stream has ended, in words, though its end was not polled yet; null while it has not.
   * Any thread.
   */
  public @Nullable String loss() {
    Status status = null;
    Error error = lastError;
    for (Object news : inbox) {
      if (news instanceof Status ended) {
        status = ended;
      } else if (news instanceof Answer answer && answer.kind() == Answer.Kind.ERROR) {
        error = answer.parse(Error.parser());
      }
    }
    return status == null ? null : describe(status, error);
  }

  private String describe(Status status, @Nullable Error error) {
    StringBuilder text = new StringBuilder("the sidecar at ").append(address);
    text.append(" ended the session: ").append(status.getCode());
    if (status.getDescription() != null) {
      text.append(": ").append(status.getDescription());
    }
    if (status.getCause() != null) {
      text.append(" (").append(status.getCause().getMessage()).append(')');
    }
    if (error != null) {
      text.append("; it last said ").append(describe(error));
    }
    return text.toString();
  }

  /** An Error in words. */
  public static String describe(Error error) {
    StringBuilder text = new StringBuilder(error.getCode().name());
    if (!error.getStep().isEmpty()) {
      text.append(" in step \"").append(error.getStep()).append('"');
    }
    return text.append(" at record ")
        .append(error.getRecord())
        .append(" of message ")
        .append(error.getSeq())
        .append(": ")
        .append(error.getMessage())
        .toString();
  }

  private void wake() {
    if (isAwake.compareAndSet(false, true)) {
      wakeup.run();
    }
  }

  // ---- The end ----

  /**
   * Ends the session in order, without waiting for the sidecar's word: what is in flight was
   * answered.
   */
  public void finish(String reason) {
    if (isClosed) {
      return;
    }
    isClosed = true;
    wakeup = NOBODY;
    send(12, Close.newBuilder().setReason(reason).build());
    call.halfClose();
    call.request(Integer.MAX_VALUE); // what still comes is nobody's, but the end stands behind it
    channel.shutdown();
    try {
      Timers.acquire().schedule(channel::shutdownNow, END_SECONDS, TimeUnit.SECONDS);
    } finally {
      Timers.release();
    }
  }

  /** Ends it at once, whatever is in flight. */
  @Override
  public void close() {
    if (!isClosed) {
      isClosed = true;
      wakeup = NOBODY;
      call.cancel("the task ended", null);
      channel.shutdownNow();
    }
  }

  /** gRPC's side: puts what comes into the inbox. */
  private final class Listener extends ClientCall.Listener<Object> {
    @Override
    public void onMessage(Object message) {
      lastArrival = System.nanoTime();
      put(message);
    }

    @Override
    public void onReady() {
      put(READY);
    }

    @Override
    public void onClose(Status status, Metadata trailers) {
      put(status);
    }

    private void put(Object news) {
      if (!isClosed) {
        inbox.add(news);
        wake();
      }
    }
  }
}
