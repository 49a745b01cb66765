"""Calls of encoders, decoders and trackers: connections, retries, uploads and streams, without pictures or sessions.

The client is built on this package, and so is the gateway. What it offers:

- `Servers`: connections to the servers, with a method for each of their calls. One is shared by all callers.
- `Caller`: on whose behalf a call is made (token, tenant) and how long it may take; each call is given one.
- `Credentials`, `Tls`: how connections are encrypted.
- `Stream`: a SegmentStream that goes on with another decoder when its own stops.
- `TrackCall`: a Track stream of a tracker.
- `to_status`, `from_status`: an error as the servers send it.
- `is_public`, `is_loopback`: what kind of network address a host has.

Calls raise `maskwire.MaskwireError` and nothing of gRPC's.
"""

from maskwire.addresses import is_loopback, is_public
from maskwire.errors import from_status, to_status
from maskwire.transport.caller import Caller
from maskwire.transport.credentials import Credentials, Tls
from maskwire.transport.servers import Servers
from maskwire.transport.stream import Stream
from maskwire.transport.stream_request import Answer
from maskwire.transport.track_call import TrackCall

__all__ = [
    "Answer",
    "Caller",
    "Credentials",
    "Servers",
    "Stream",
    "Tls",
    "TrackCall",
    "from_status",
    "is_loopback",
    "is_public",
    "to_status",
]
