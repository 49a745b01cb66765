"""Connections to encoders and decoders."""

import hashlib
import itertools
import json
import os
import time
from typing import Any

import grpc

from maskwire.errors import InvalidRequest, MaskwireError
from maskwire.host_port import check_address
from maskwire.token_bucket import TokenBucket
from maskwire.transport.credentials import Credentials
from maskwire.transport.process import check_process, claim_process

_DEFAULTS = {"encoder": "localhost:50051", "decoder": "localhost:50052", "tracker": "localhost:50053"}

_MAX_MESSAGE_BYTES = 64 << 20
CHUNK_BYTES = 1 << 16
"""Size of the pieces in which files are sent: few bytes are in flight at a time."""

_CONNECTIONS = 32  # to one server; each has up to 32 calls at a time
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # A restarted server is found again within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Few bytes are in flight at a time, so that pings, which queue behind them, return in time over slow links too.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.max_pings_without_data", 0),  # also when a session is idle
    ("grpc.max_connections_per_subchannel_cap", _CONNECTIONS),
]
# Whoever has more calls than a server takes on one connection opens another.
_SCALING: dict[str, Any] = {"connectionScaling": {"maxConnectionsPerSubchannel": _CONNECTIONS}}
# A name that resolves to several servers is asked for all of them, and calls go to each in turn.
_BALANCED: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}

_RETRIES_PER_S = 100  # of all calls to the servers of a kind; each success allows one more
_RETRIES_AT_ONCE = 100
_AVOIDED_S = 1  # how long a server that could not be reached is asked last


class Channels:
    """One channel to each of several equal servers. All callers share them.

    Args:
        kind: "encoder", "decoder" or "tracker".
        addresses: "host:port" or "[::1]:port", or several separated by commas; None: MASKWIRE_ENCODER,
            MASKWIRE_DECODER or MASKWIRE_TRACKER, else the usual port of this machine.
        credentials: How to encrypt.
        dead_after_s: Seconds after which a server that stopped answering is given up.

    Raises:
        InvalidRequest: BAD_ADDRESS: there is no address in `addresses`, or an IPv6 address lacks its brackets.
        MaskwireError: FORKED, as `check`.
    """

    def __init__(self, kind: str, addresses: str | None, credentials: Credentials, dead_after_s: float = 3) -> None:
        text = addresses or os.environ.get(f"MASKWIRE_{kind.upper()}") or _DEFAULTS[kind]
        self.kind = kind
        self.addresses = [check_address(address.strip(), kind) for address in text.split(",") if address.strip()]
        if not self.addresses:
            raise InvalidRequest(f"{text!r} has no address; give host:port", "BAD_ADDRESS", kind)
        service = _SCALING | (_BALANCED if kind == "encoder" else {})
        self._options = [*_OPTIONS, *_pings(dead_after_s), ("grpc.service_config", json.dumps(service))]
        self._channels: dict[str, grpc.aio.Channel] = {}
        self.budget = TokenBucket(_RETRIES_PER_S, _RETRIES_AT_ONCE)
        self._turns = itertools.count()
        self._avoided_until: dict[str, float] = {}
        self._credentials = credentials
        self._closed = False
        claim_process()

    def check(self) -> None:
        """Raises FORKED in a forked process, and CLOSED after `close`."""
        check_process()
        if self._closed:
            raise MaskwireError("the client is closed; make another", "CLOSED")

    def pick(self, image_id: str | None, attempt: int) -> tuple[grpc.aio.Channel, str]:
        """Picks a server: for an image the same one as long as it answers, since that has its embedding in memory.

        Args:
            image_id: Name of the image that the call is about; None: servers take turns.
            attempt: 0 at first; each retry goes to the next server.

        Returns:
            The channel, and the server's address.
        """
        self.check()
        # Rendezvous hashing: adding a server moves only the images that the new one gets.
        ranked = sorted(self.addresses, key=lambda address: hashlib.sha256(f"{address}\0{image_id}".encode()).digest())
        turn = (next(self._turns) if image_id is None else attempt) % len(ranked)
        ranked = ranked[turn:] + ranked[:turn]
        now = time.monotonic()
        address = next((address for address in ranked if self._avoided_until.get(address, 0) < now), ranked[0])
        if address not in self._channels:
            self._channels[address] = self._credentials.connect(address, self._options)
        return self._channels[address], address

    def mark_unreachable(self, address: str) -> None:
        """Has other servers asked first for a second."""
        self._avoided_until[address] = time.monotonic() + _AVOIDED_S

    async def close(self) -> None:
        """Closes the connections; later calls raise CLOSED."""
        self._closed = True
        while self._channels:
            await self._channels.popitem()[1].close()


def _pings(dead_after_s: float) -> list[tuple[str, Any]]:
    """Options for a ping every third of the time, whose answer may take the other two thirds.

    Without ping_timeout_ms, gRPC waits a minute for the answer."""
    third_ms = int(dead_after_s * 1e3 / 3)
    return [
        ("grpc.keepalive_time_ms", third_ms),
        ("grpc.keepalive_timeout_ms", 2 * third_ms),
        ("grpc.http2.ping_timeout_ms", 2 * third_ms),
    ]
