"""Calls of encoders and decoders: connections, retries, uploads and streams, without pictures, results or sessions.

The client is built on this package, and so is the gateway. What it offers:

- `Servers`: connections to encoders and decoders, with a method for each of their calls. One is shared by all callers.
- `Caller`: on whose behalf a call is made (token, tenant) and how long it may take; each call is given one.
- `Credentials`, `Tls`: how connections are encrypted.
- `Stream`: a SegmentStream that goes on with another decoder when its own stops.
- `to_status`: an error as the servers send it.
- `is_public`, `is_loopback`: what kind of network address a host has.

Calls raise `maskwire.MaskwireError` and nothing of gRPC's.
"""

from maskwire.addresses import is_loopback, is_public
from maskwire.errors import to_status
from maskwire.transport.caller import Caller
from maskwire.transport.credentials import Credentials, Tls
from maskwire.transport.servers import Servers
from maskwire.transport.stream import Stream
from maskwire.transport.stream_request import Answer

__all__ = ["Answer", "Caller", "Credentials", "Servers", "Stream", "Tls", "is_loopback", "is_public", "to_status"]
