package io.flinkbridge.testing;

import com.google.protobuf.MessageLite;
import com.google.protobuf.Parser;
import flink_bridge.FlinkBridgeOuterClass.BarrierAck;
import flink_bridge.FlinkBridgeOuterClass.Batch;
import flink_bridge.FlinkBridgeOuterClass.EndAck;
import flink_bridge.FlinkBridgeOuterClass.FromWorker;
import flink_bridge.FlinkBridgeOuterClass.Limits;
import flink_bridge.FlinkBridgeOuterClass.OpenAck;
import flink_bridge.FlinkBridgeOuterClass.RestoreAck;
import flink_bridge.FlinkBridgeOuterClass.Results;
import flink_bridge.FlinkBridgeOuterClass.StateDeclaration;
import flink_bridge.FlinkBridgeOuterClass.ToWorker;
import io.flinkbridge.operator.SegmentSettings;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.MethodDescriptor;
import io.grpc.Server;
import io.grpc.ServerServiceDefinition;
import io.grpc.Status;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.io.InputStream;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;

/**
 * A sidecar that does what a test wants, for what a real one does not do on demand: answer late,
 * out of order, in parts, or not at all. What the test does not take is answered as a passthrough
 * segment would.
 */
public final class FakeSidecar implements AutoCloseable {
  /** What a test has to say to a message: true when it has taken it. */
  public interface Script {
    boolean take(ToWorker message, Session session);
  }

  /** One stream, from the sidecar's side. */
  public static final class Session {
    private final StreamObserver<FromWorker> out;
    private boolean isEnded;

    private Session(StreamObserver<FromWorker> out) {
      this.out = out;
    }

    /** Sends an answer. */
    public synchronized void send(FromWorker.Builder answer) {
      if (!isEnded) {
        out.onNext(answer.build());
      }
    }

    /** Ends the stream. */
    public synchronized void end(Status status) {
      isEnded = true;
      out.onError(status.asRuntimeException());
    }
  }

  private static final MethodDescriptor<ToWorker, FromWorker> METHOD =
      MethodDescriptor.<ToWorker, FromWorker>newBuilder()
          .setType(MethodDescriptor.MethodType.BIDI_STREAMING)
          .setFullMethodName("flink_bridge.FlinkBridge/Session")
          .setRequestMarshaller(marshaller(ToWorker.parser()))
          .setResponseMarshaller(marshaller(FromWorker.parser()))
          .build();

  private final Script script;
  private final List<StateDeclaration> manifest;
  private final Server server;

  /** Everything that has come, of all sessions. */
  public final List<ToWorker> received = new CopyOnWriteArrayList<>();

  public FakeSidecar(List<StateDeclaration> manifest, Script script) throws IOException {
    this.script = script;
    this.manifest = manifest;
    server =
        Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
            .directExecutor()
            .maxInboundMessageSize(64 << 20)
            .addService(
                ServerServiceDefinition.builder("flink_bridge.FlinkBridge")
                    .addMethod(METHOD, ServerCalls.asyncBidiStreamingCall(this::serve))
                    .build())
            .build()
            .start();
  }

  public FakeSidecar(Script script) throws IOException {
    this(List.of(), script);
  }

  /** Settings of a segment that it serves. */
  public SegmentSettings settings(boolean keyed) {
    return settings(keyed, "127.0.0.1:" + server.getPort());
  }

  /** Settings of such a segment at another address. */
  public static SegmentSettings settings(boolean keyed, String address) {
    return new SegmentSettings(
        "fake", "hash", 0, "fake", keyed, 128, List.of(), address, Segments.tuning());
  }

  /** The kinds of what has come, in order. */
  public List<ToWorker.KindCase> kinds() {
    return received.stream().map(ToWorker::getKindCase).toList();
  }

  private StreamObserver<ToWorker> serve(StreamObserver<FromWorker> out) {
    Session session = new Session(out);
    return new StreamObserver<>() {
      @Override
      public void onNext(ToWorker message) {
        received.add(message);
        if (!script.take(message, session)) {
          answer(message, session);
        }
      }

      @Override
      public void onError(Throwable cause) {}

      @Override
      public void onCompleted() {
        out.onCompleted();
      }
    };
  }

  /** Answers as a passthrough segment would. */
  public void answer(ToWorker message, Session session) {
    FromWorker.Builder answer = FromWorker.newBuilder().setSeq(message.getSeq());
    switch (message.getKindCase()) {
      case OPEN ->
          answer.setOpenAck(
              OpenAck.newBuilder()
                  .setEpoch(1)
                  .setLimits(
                      Limits.newBuilder().setMaxMessageBytes(1 << 20).setMaxRecordBytes(1 << 20))
                  .addAllStateManifest(manifest));
      case RESTORE_END ->
          answer.setRestoreAck(
              RestoreAck.newBuilder().setEntries(message.getRestoreEnd().getEntries()));
      case BATCH -> answer.setResults(echo(message.getBatch()));
      case WATERMARK, WATERMARK_STATUS, TIMER_TICK ->
          answer.setResults(Results.getDefaultInstance());
      case BARRIER ->
          answer.setBarrierAck(
              BarrierAck.newBuilder().setCheckpointId(message.getBarrier().getCheckpointId()));
      case END_INPUT -> answer.setEndAck(EndAck.getDefaultInstance());
      case RESTORE_CHUNK, CLOSE, KIND_NOT_SET -> {
        return;
      }
    }
    session.send(answer);
  }

  /** The records of a batch as results. */
  public static Results echo(Batch batch) {
    return Results.newBuilder().addAllRecords(batch.getRecordsList()).build();
  }

  @Override
  public void close() {
    server.shutdownNow();
  }

  private static <T extends MessageLite> MethodDescriptor.Marshaller<T> marshaller(
      Parser<T> parser) {
    return new MethodDescriptor.Marshaller<>() {
      @Override
      public InputStream stream(T message) {
        return message.toByteString().newInput();
      }

      @Override
      public T parse(InputStream stream) {
        try {
          return parser.parseFrom(stream);
        } catch (IOException e) {
          throw new IllegalArgumentException(e);
        }
      }
    };
  }
}
