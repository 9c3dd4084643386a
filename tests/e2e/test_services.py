"""What is served beside the contracts: health and reflection, asked by grpcio's own clients."""

import grpc
import pytest
from conftest import PATIENCE, wait_until
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from wire_pipeline import PIPELINE, UPPER

SERVICES = {"flink_bridge.FlinkBridge", "flink_worker.FlinkWorkerService", "grpc.health.v1.Health"}


@pytest.fixture
def channel(bridged, client):
    return client(bridged(PIPELINE).tcp).channel


def test_health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", *SERVICES - {"grpc.health.v1.Health"}):
        request = health_pb2.HealthCheckRequest(service=service)
        # the front may hear of the last worker a moment after the supervisor said that all serve
        wait_until(lambda: stub.Check(request, timeout=PATIENCE).status == health_pb2.HealthCheckResponse.SERVING, service or "health")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=PATIENCE)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_health_is_watched(bridged, client):
    """A watcher is told at once, and again when the sidecar stops."""
    sidecar = bridged(PIPELINE)
    watch = health_pb2_grpc.HealthStub(client(sidecar.unix).channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    while next(watch).status != health_pb2.HealthCheckResponse.SERVING:
        pass  # the front may hear of the last worker a moment after the supervisor said that all serve
    sidecar.stop()
    seen = []
    with pytest.raises(grpc.RpcError):
        seen.extend(reply.status for reply in watch)
    assert health_pb2.HealthCheckResponse.SERVING not in seen


def test_reflection(channel):
    """A client that knows nothing finds the services, learns the messages, and makes a call."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert SERVICES <= set(database.get_services())
    pool = descriptor_pool.DescriptorPool(database)
    method = pool.FindServiceByName("flink_worker.FlinkWorkerService").FindMethodByName("ProcessMessage")
    request = message_factory.GetMessageClass(method.input_type)(segment_id=UPPER)
    request.message.payload = b"found"
    reply = channel.unary_unary(
        "/flink_worker.FlinkWorkerService/ProcessMessage",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )(request, timeout=PATIENCE)
    assert [message.payload for message in reply.messages] == [b"FOUND"]
    session = pool.FindServiceByName("flink_bridge.FlinkBridge").FindMethodByName("Session")
    assert "seq" in session.input_type.fields_by_name
