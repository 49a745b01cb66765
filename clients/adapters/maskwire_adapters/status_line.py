"""HTTP/1.1 with error messages as reason phrases.

Label Studio, CVAT and X-AnyLabeling show their users the status line of a failed request, and nothing of its body:
"400 Client Error: Bad Request for url ...". ASGI cannot set the reason phrase, so the application puts the message into
a header, from which the protocol takes it.
"""

from typing import Any

import h11
from maskwire_core.http.connections import BoundedH11

MESSAGE_HEADER = "x-error-message"
_NAME = MESSAGE_HEADER.encode()


class _Connection(h11.Connection):
    def send(self, event: h11.Event) -> bytes | None:  # type: ignore[override]  # one signature for both overloads
        if isinstance(event, h11.Response):
            message = next((value for name, value in event.headers if name == _NAME), None)
            if message is not None:
                event = h11.Response(status_code=event.status_code, headers=event.headers, reason=message)
        return super().send(event)


class MessageInStatusLine(BoundedH11):
    """Uvicorn's HTTP/1.1 within limits, with the messages of errors in the status line."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = _Connection(h11.SERVER)
