"""What every request of an adapter passes first: who may not use it is refused, and memory has an account."""

from maskwire_core.http.memory import set_holder
from maskwire_core.http.visitors import Visitors
from maskwire_core.networks import network_of
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from maskwire_adapters.serving import refused


class Front:
    """Refuses requests of foreign web pages, and those under names that the adapter does not have.

    Args:
        app: The adapter's application.
        visitors: Judges names and origins.
    """

    def __init__(self, app: ASGIApp, visitors: Visitors) -> None:
        self._app = app
        self._visitors = visitors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            problem = self._visitors.refusal(request.headers)
            if problem is not None:
                await refused(request, problem)(scope, receive, send)
                return
            set_holder(scope, network_of(scope.get("client")))
        await self._app(scope, receive, send)
