"""grpc.health.v1.Health, whose state waits for nobody: a caller who does not read keeps only his own call."""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from maskwire_core.errors import NotFound, ResourceExhausted, ServiceError, Unavailable
from maskwire_core.networks import network_of_peer
from maskwire_core.rpc.error_status import abort
from maskwire_core.scheduling.shares import Shares

Context = grpc.aio.ServicerContext[Any, Any]

MAX_WATCHES = 256
"""Most Watch calls at a time; addresses share them."""
_TOO_MANY = ResourceExhausted(
    "TOO_MANY_WATCHES", "too many Watch calls are open; use Check from time to time", retry_after_s=5
)


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # has no types
    """The health of a server's services, by name; "" is the whole server.

    gRPC's own servicer holds a lock while it writes to a caller, so that one who does not read keeps the server from
    changing its state.
    """

    def __init__(self) -> None:
        self._serving: dict[str, bool] = {}
        self._ends = False
        self._changed = asyncio.Event()  # set at the next change, and then replaced
        self._watches = Shares(MAX_WATCHES)

    def set(self, name: str, *, serving: bool) -> None:
        """Sets the state of a service. Nothing changes it after `shut_down`."""
        if not self._ends:
            self._serving[name] = serving
            self._notify()

    def shut_down(self) -> None:
        """Makes all services NOT_SERVING for good; Watch calls are told, and end."""
        self._serving = dict.fromkeys(self._serving, False)
        self._ends = True
        self._notify()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        """Returns the state of a service; NOT_FOUND if there is none of this name."""
        if request.service not in self._serving:
            await abort(context, NotFound("UNKNOWN_SERVICE", "this server has no such service", field="service"))
        return self._state(request.service)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        """Sends the state of a service now and whenever it changes; SERVICE_UNKNOWN if there is none of this name."""
        try:
            with self._watches.holding(network_of_peer(context.peer()), 1, _TOO_MANY):
                told = None
                while True:
                    changed, state, ends = self._changed, self._state(request.service), self._ends
                    if state != told:
                        await context.write(state)
                        told = state
                    elif ends:
                        raise Unavailable("DRAINING", "this server is about to stop; ask another", retry_after_s=0.1)
                    else:
                        await changed.wait()
        except ServiceError as error:
            await abort(context, error)

    def _state(self, name: str) -> health_pb2.HealthCheckResponse:
        response = health_pb2.HealthCheckResponse
        states = {None: response.SERVICE_UNKNOWN, True: response.SERVING, False: response.NOT_SERVING}
        return response(status=states[self._serving.get(name)])

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
