package io.flinkbridge.session;

import io.grpc.Drainable;
import io.grpc.KnownLength;
import io.grpc.MethodDescriptor;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;

/**
 * A message as it goes: bytes already, which gRPC copies from their array into the socket's buffer.
 */
final class Outgoing {
  private static final MethodDescriptor.Marshaller<Outgoing> OUT =
      new MethodDescriptor.Marshaller<>() {
        @Override
        public InputStream stream(Outgoing message) {
          return new Bytes(message.array, message.offset, message.size);
        }

        @Override
        public Outgoing parse(InputStream stream) {
          throw new UnsupportedOperationException("clients send these");
        }
      };

  /** The method for one session, whose answers are read by this reader. */
  static MethodDescriptor<Outgoing, Object> method(AnswerReader reader) {
    return MethodDescriptor.newBuilder(OUT, reader)
        .setType(MethodDescriptor.MethodType.BIDI_STREAMING)
        .setFullMethodName("flink_bridge.FlinkBridge/Session")
        .build();
  }

  private final byte[] array;
  private final int offset;
  private final int size;

  Outgoing(byte[] array, int offset, int size) {
    this.array = array;
    this.offset = offset;
    this.size = size;
  }

  /** What gRPC reads a message out of. */
  private static final class Bytes extends ByteArrayInputStream implements Drainable, KnownLength {
    private Bytes(byte[] array, int offset, int size) {
      super(array, offset, size);
    }

    @Override
    public int drainTo(OutputStream target) throws IOException {
      int size = available();
      target.write(buf, pos, size);
      pos += size;
      return size;
    }
  }
}
