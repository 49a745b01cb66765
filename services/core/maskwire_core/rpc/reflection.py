"""gRPC server reflection in its versions v1 and v1alpha, whose messages differ in their package alone.

grpcio-reflection has v1alpha, which older clients ask for; newer ones ask for v1 first, and some for nothing else.
"""

from collections.abc import Sequence

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection, reflection_pb2

_ALPHA = "grpc.reflection.v1alpha"
_V1 = "grpc.reflection.v1"
_FILE = "grpc/reflection/v1/reflection.proto"

SERVICE = f"{_V1}.ServerReflection"
"""Full name of the service in its version v1."""


def add_reflection(services: Sequence[str], server: grpc.aio.Server) -> None:
    """Offers reflection.

    Args:
        services: Full names of the services that it tells of, beside itself.
        server: Where.
    """
    _describe_v1()
    servicer = reflection.aio.ReflectionServicer((*services, reflection.SERVICE_NAME, SERVICE))
    handlers = {
        # The bytes of both versions' messages are the same.
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
    }
    for name in (reflection.SERVICE_NAME, SERVICE):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))


def _describe_v1() -> None:
    """Adds the description of v1 to the pool, unless it is there, so that clients can ask for that, too."""
    pool = descriptor_pool.Default()
    try:
        pool.FindFileByName(_FILE)
    except KeyError:
        v1 = FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(v1)
        v1.name, v1.package = _FILE, _V1
        v1.ClearField("options")  # they name v1alpha's packages in other languages
        for message in v1.message_type:
            for field in message.field:
                if field.type_name:
                    field.type_name = field.type_name.replace(_ALPHA, _V1)
        for service in v1.service:
            for method in service.method:
                method.input_type = method.input_type.replace(_ALPHA, _V1)
                method.output_type = method.output_type.replace(_ALPHA, _V1)
        pool.Add(v1)
