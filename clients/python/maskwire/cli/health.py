"""Whether servers answer: encoders and decoders, the gateway, the store."""

import contextlib
import http.client
import os
import socket
import ssl
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from maskwire.transport.credentials import Credentials

TIMEOUT_S = 3
"""How long an encoder or a decoder may take to answer."""


def health(address: str, service: str = "") -> str:
    """Asks an encoder or a decoder for its health, with the TLS settings of the environment.

    Args:
        address: "host:port".
        service: Full name of a service; empty for the whole server.

    Returns:
        SERVING, NOT_SERVING, UNREACHABLE; or NO_SUCH_SERVICE, if the server does not offer the service.
    """
    with Credentials().connect_blocking(address) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            response = health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            is_unknown = service and error.code() is grpc.StatusCode.NOT_FOUND
            return "NO_SUCH_SERVICE" if is_unknown else "UNREACHABLE"
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


def answers_http(host: str, port: int, *, tls: bool = False) -> bool:
    """Whether a gateway answers that it is alive; its certificate is not verified."""
    connection = http.client.HTTPConnection(host, port, timeout=1)
    if tls:
        context = ssl.create_default_context()
        # The gateway is a child of the caller, and its certificate may be for the machine's public name only.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if certificate := os.environ.get("MASKWIRE_TLS_CLIENT_CERT"):
            context.load_cert_chain(certificate, os.environ.get("MASKWIRE_TLS_CLIENT_KEY"))
        connection = http.client.HTTPSConnection(host, port, timeout=1, context=context)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    return False


def answers_ping(place: int | Path) -> bool:
    """Whether a store on this machine answers, be it that it wants a password.

    Args:
        place: Its port, or the path of its socket.
    """
    address = ("127.0.0.1", place) if isinstance(place, int) else str(place)
    family = socket.AF_INET if isinstance(place, int) else socket.AF_UNIX
    with contextlib.suppress(OSError), socket.socket(family) as connection:
        connection.settimeout(1)
        connection.connect(address)
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
    return False
