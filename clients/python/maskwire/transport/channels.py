"""Connections to encoders and decoders."""

import copy
import hashlib
import itertools
import json
import os
import time
from typing import Any, Self
from urllib.parse import quote

import grpc

from maskwire.errors import InvalidRequest
from maskwire.lifetime import Life
from maskwire.transport import tracing
from maskwire.transport.credentials import Credentials, Metadata, authorized
from maskwire.transport.retry_budget import RetryBudget

IMAGE_HEADER = "maskwire-image"
"""Metadata of decoder calls: the image's name, percent-encoded."""

DEFAULT_ENCODER = "localhost:50051"
DEFAULT_DECODER = "localhost:50052"

_MAX_MESSAGE_BYTES = 64 << 20
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # A restarted server is found again within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # What is on its way stays little, so that pings, which queue behind it, come back in time over slow links too.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.max_pings_without_data", 0),  # also when a session is idle
]
# A name that stands for several servers is asked for all of them, and calls go to each in turn.
_BALANCED = ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}))


_AVOIDED_S = 1  # for which a server that could not be reached is not asked first


class Channels:
    """One channel to each of some equal servers.

    Args:
        kind: "encoder" or "decoder".
        addresses: "host:port", or several separated by commas; None takes MASKWIRE_ENCODER or MASKWIRE_DECODER.
        default: Address where neither says.
        credentials: How to connect, and what to show.
        dead_after_s: Seconds after which a server that stopped answering is given up.

    Raises:
        InvalidRequest: There is no address in it.

    Attributes:
        budget: Of retries, for all calls to these servers.
    """

    def __init__(
        self, kind: str, addresses: str | None, default: str, credentials: Credentials, dead_after_s: float = 3
    ) -> None:
        text = addresses or os.environ.get(f"MASKWIRE_{kind.upper()}") or default
        self.kind = kind
        self.addresses = [address.strip() for address in text.split(",") if address.strip()]
        if not self.addresses:
            raise InvalidRequest(f"{text!r} has no address; give host:port", "BAD_ADDRESS", kind)
        self._options = [*_OPTIONS, *_pings(dead_after_s), *([_BALANCED] if kind == "encoder" else [])]
        self._channels: dict[str, grpc.aio.Channel] = {}
        self.budget = RetryBudget()
        self._turns = itertools.count()
        self._away: dict[str, float] = {}
        self._credentials = credentials
        self._metadata = credentials.metadata
        self._borrowed = False
        self._life = Life()

    def check(self) -> None:
        """Refuses to go on in a forked process, or after `close`; see `Life.check`."""
        self._life.check()

    def pick(self, key: str | None, attempt: int) -> tuple[grpc.aio.Channel, str]:
        """A channel for a key, the same for the same key as long as that server answers, so that its memory is used.

        Args:
            key: Image that the call is about; None where any server is as good as another: they take turns.
            attempt: 0 at first; each retry goes to the next server.

        Returns:
            The channel, and the server's address.
        """
        self.check()
        # Rendezvous hashing: adding a server moves only the keys that the new one gets.
        ranked = sorted(self.addresses, key=lambda address: hashlib.sha256(f"{address}\0{key}".encode()).digest())
        turn = (next(self._turns) if key is None else attempt) % len(ranked)
        ranked = ranked[turn:] + ranked[:turn]
        now = time.monotonic()
        address = next((address for address in ranked if self._away.get(address, 0) < now), ranked[0])
        if address not in self._channels:
            self._channels[address] = self._credentials.connect(address, self._options)
        metadata = (*self._metadata, *tracing.context())
        if key:  # balancers between here and the decoders keep an image to one of them by it
            metadata = (*metadata, (IMAGE_HEADER, quote(key)))
        return authorized(self._channels[address], metadata), address

    def acting_as(self, metadata: Metadata) -> Self:
        """The same channels, whose calls send other metadata."""
        other = copy.copy(self)
        other._metadata, other._borrowed = metadata, True
        return other

    def unreachable(self, address: str) -> None:
        """A server could not be reached: others go first for a while."""
        self._away[address] = time.monotonic() + _AVOIDED_S

    async def close(self) -> None:
        if self._borrowed or self._life.closed:
            return
        self._life.closed = True
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()


def _pings(dead_after_s: float) -> list[tuple[str, Any]]:
    """A ping for each third of the time, to be answered in the other two. By the first two alone it takes a minute."""
    third_ms = int(dead_after_s * 1e3 / 3)
    return [
        ("grpc.keepalive_time_ms", third_ms),
        ("grpc.keepalive_timeout_ms", 2 * third_ms),
        ("grpc.http2.ping_timeout_ms", 2 * third_ms),
    ]
