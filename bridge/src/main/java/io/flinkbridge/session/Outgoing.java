package io.flinkbridge.session;

import io.grpc.Drainable;
import io.grpc.KnownLength;
import io.grpc.MethodDescriptor;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;

/**
 * The one method of the contract for messages that are bytes already: gRPC copies them from the
 * array to the socket's buffer, and back.
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

  private static final MethodDescriptor.Marshaller<byte[]> IN =
      new MethodDescriptor.Marshaller<>() {
        @Override
        public InputStream stream(byte[] message) {
          throw new UnsupportedOperationException("sidecars send these");
        }

        @Override
        public byte[] parse(InputStream stream) {
          try {
            byte[] message =
                new byte[stream.available()]; // all of it: gRPC's streams know their length
            if (stream.readNBytes(message, 0, message.length) != message.length
                || stream.read() >= 0) {
              throw new ProtocolException("a message of another length than it says");
            }
            return message;
          } catch (IOException e) {
            throw new ProtocolException(String.valueOf(e.getMessage()));
          }
        }
      };

  static final MethodDescriptor<Outgoing, byte[]> METHOD =
      MethodDescriptor.newBuilder(OUT, IN)
          .setType(MethodDescriptor.MethodType.BIDI_STREAMING)
          .setFullMethodName("flink_bridge.FlinkBridge/Session")
          .build();

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
