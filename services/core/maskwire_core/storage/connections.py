"""Connections to a store: to one server, to the primary that sentinels name, or to a cluster."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import numpy as np
import redis
from numpy.typing import NDArray
from redis.backoff import ExponentialWithJitterBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import ClusterError, RedisClusterException, TryAgainError
from redis.retry import Retry
from redis.sentinel import Sentinel

from maskwire_core.errors import InvalidArgument, ResourceExhausted, Unavailable
from maskwire_core.storage import large_get

log = logging.getLogger(__name__)

_PORT, _SENTINEL_PORT = 6379, 26379
_PROBE_AFTER_S = 0.25


class Connections:
    """A pool of connections to one store, opened when needed. Safe to use from many threads.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://` address of a server; `redis+sentinel://HOST:PORT,.../SERVICE/DB`
            with sentinels that know the primary; or `redis+cluster://HOST:PORT,...` with some of a cluster's nodes.
            The latter two may begin with `rediss`, too.
        timeout_s: Longest silence within one command, in seconds.

    Raises:
        InvalidArgument: The URL is invalid.

    Attributes:
        address: The store's address without its password.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._client: redis.Redis | None = None
        self._silent = False  # whether the last command timed out
        self._probe_at = 0.0  # when the next caller may try a silent store
        try:
            self.address, self._open = _parse(url, timeout_s)
        except ValueError as error:
            # What cannot be parsed may be a part of the password.
            why = "percent-encode special characters in its password" if "@" in url else str(error)
            raise InvalidArgument("BAD_URL", f"not a store's address: {why}", field="redis_url") from error

    def close(self) -> None:
        """Closes all connections."""
        if self._client is not None:
            self._client.close()

    @property
    def is_silent(self) -> bool:
        """Whether the store did not answer the last command in time."""
        return self._silent

    @contextlib.contextmanager
    def commands(self) -> Iterator[redis.Redis]:
        """Yields the client for commands, and translates what redis-py raises in the body. Must not be nested.

        While the store does not answer in time, only one caller at a time tries it; the others fail at once, so that
        they and their threads do not wait for the timeout, too.

        Raises:
            Unavailable: STORE_UNAVAILABLE if the store cannot be reached, is loading, fails over or is read-only;
                STORE_REFUSES if it refuses the command.
            ResourceExhausted: STORE_FULL if it has no memory left for a write.
        """
        self._admit()
        silent = False
        try:
            yield self._connected()
        except redis.OutOfMemoryError as error:
            raise ResourceExhausted(
                "STORE_FULL", "the store has no memory left; try again later", retry_after_s=5
            ) from error
        except redis.TimeoutError as error:
            silent, self._probe_at = not isinstance(self._client, RedisCluster), time.monotonic() + _PROBE_AFTER_S
            raise _unavailable(error) from error
        except redis.ReadOnlyError as error:
            # Another server is the primary now. If the address is a name that follows it, new connections reach it. A
            # cluster's client learns of it by itself.
            client = self._connected()
            if not isinstance(client, RedisCluster):
                client.connection_pool.disconnect()
            raise _unavailable(error) from error
        except (redis.ConnectionError, RedisClusterException, ClusterError, TryAgainError) as error:
            raise _unavailable(error) from error
        except redis.RedisError as error:  # no permission, disk full, ...
            log.error("the store refuses: %s", error)
            raise Unavailable(
                "STORE_REFUSES", "the store refuses a command; its log tells why", retry_after_s=5
            ) from error
        finally:
            self._silent = silent  # anything but silence comes at once, so that nobody waits for it

    # The methods below raise redis-py's errors: call them within `commands`.

    def get(self, name: str, most: int = large_get.MOST) -> NDArray[np.uint8] | None:
        """Reads a large value (uint8, 1-D) of at most so many bytes into one buffer; see `large_get.get`. None if there
        is no such key."""
        client = self._connected()
        if not isinstance(client, RedisCluster):
            return large_get.get(client, name, most)
        try:
            node = client.get_redis_connection(client.get_node_from_key(name))
            return large_get.get(node, name, most)
        except redis.TimeoutError:
            raise
        except redis.RedisError:  # the key has moved, or its node is gone: redis-py finds out where to
            value = cast(bytes | None, client.get(name))
            return None if value is None else np.frombuffer(value, np.uint8)

    def for_each(self, names: Iterable[str | bytes], *commands: tuple[str | int, ...]) -> list[tuple[Any, ...]]:
        """Runs the same commands on many keys in one round trip, without a transaction.

        Args:
            names: Keys.
            commands: Each a command's name and what follows the key, such as `("GETRANGE", 0, 99)`.

        Returns:
            For each key the replies; None where a command does not fit the type of the key's value.
        """
        pipeline = self._connected().pipeline(transaction=False)
        for name in names:
            for command, *arguments in commands:
                pipeline.execute_command(command, name, *arguments)  # type: ignore[no-untyped-call]
        replies = [_unless_wrong_type(reply) for reply in pipeline.execute(raise_on_error=False)]
        return list(zip(*[iter(replies)] * len(commands), strict=True))

    def primaries(self) -> list[str]:
        """Names of the nodes that hold keys, in the order of their slots; `[""]` unless the store is a cluster."""
        client = self._connected()
        if not isinstance(client, RedisCluster):
            return [""]
        slots = client.nodes_manager.slots_cache
        return list(dict.fromkeys(str(slots[slot][0].name) for slot in sorted(slots)))

    def scan(self, node: str, cursor: int, pattern: str, count: int) -> tuple[int, list[bytes]]:
        """Runs one SCAN step on a node. Returns the next cursor (0 at the end) and keys, possibly with duplicates."""
        client = self._connected()
        if not isinstance(client, RedisCluster):
            return cast(tuple[int, list[bytes]], client.scan(cursor, match=pattern, count=count))
        target = client.get_node(node_name=node)
        cursors, names = client.scan(cursor, match=pattern, count=count, target_nodes=target)
        return int(cursors[node]), names

    def _connected(self) -> redis.Redis:
        """The client: a `Redis`, or a `RedisCluster`, which has the same commands. It is created when first needed,
        since a cluster's asks the nodes at once."""
        with self._lock:
            if self._client is None:
                self._client = self._open()
            return self._client

    def _admit(self) -> None:
        if not self._silent:
            return
        with self._lock:
            now = time.monotonic()
            if self._silent and now < self._probe_at:
                raise Unavailable("STORE_UNAVAILABLE", "the store does not answer; try again", retry_after_s=0.5)
            self._probe_at = now + self._timeout_s


def with_password(url: str, file: Path) -> str:
    """Puts the password that a file has into a store's URL.

    Raises:
        InvalidArgument: The URL has a password already.
        OSError: The file cannot be read.
    """
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    if ":" in login:
        raise InvalidArgument(
            "BAD_URL", "the URL has a password, and there is a file with one, too; leave one out", field="redis_url"
        )
    password = quote(file.read_text().strip(), safe="")
    return urlunsplit(parts._replace(netloc=f"{login}:{password}@{host}"))


def _unless_wrong_type(reply: Any) -> Any:
    if isinstance(reply, redis.ResponseError) and "WRONGTYPE" in str(reply):
        return None
    if isinstance(reply, Exception):
        raise reply
    return reply


def _unavailable(error: Exception) -> Unavailable:
    log.warning("the store does not answer: %s", error)
    return Unavailable("STORE_UNAVAILABLE", "the store does not answer; try again", retry_after_s=0.5)


def _parse(url: str, timeout_s: float) -> tuple[str, Callable[[], redis.Redis]]:
    """Returns a URL's address without its password, and a function that creates its client.

    Raises:
        ValueError: The URL is invalid.
    """
    timeouts = {"socket_timeout": timeout_s, "socket_connect_timeout": min(timeout_s, 1)}
    # Broken connections are retried; a command that timed out is not.
    retry = Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.2), 2, supported_errors=(redis.ConnectionError,))
    options: dict[str, Any] = {
        **timeouts,
        "retry": retry,
        "health_check_interval": 30,
    }
    protocol, _, kind = url.partition("://")[0].partition("+")
    if not kind:
        client = redis.Redis.from_url(url, **options)
        where = client.connection_pool.connection_kwargs
        return where.get("path") or f"{where.get('host')}:{where.get('port')}", lambda: client
    if protocol not in ("redis", "rediss") or kind not in ("sentinel", "cluster"):
        raise ValueError(f"{protocol}+{kind}:// is not known; there are redis+sentinel:// and redis+cluster://")
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    servers = [_host_and_port(text, _SENTINEL_PORT if kind == "sentinel" else _PORT) for text in hosts.split(",")]
    user, _, password = login.partition(":")
    options |= {"username": unquote(user) or None, "password": unquote(password) or None}
    words = [word for word in parts.path.split("/") if word]
    if kind == "cluster":
        if words:
            raise ValueError("a cluster has no numbered databases; end the address after the last port")
        nodes = [ClusterNode(*server) for server in servers]  # type: ignore[no-untyped-call]
        options |= {"ssl": True} if protocol == "rediss" else {}
        return hosts, lambda: cast(redis.Redis, RedisCluster(startup_nodes=nodes, **options))
    if not 1 <= len(words) <= 2:
        raise ValueError("name the service that the sentinels watch: redis+sentinel://HOST:26379/mymaster")
    options |= {"db": int(words[1]) if len(words) == 2 else 0, "ssl": protocol == "rediss"}
    sentinels = Sentinel(servers, sentinel_kwargs=timeouts)  # type: ignore[no-untyped-call]
    client = sentinels.master_for(words[0], **options)  # type: ignore[no-untyped-call]
    return f"{words[0]} by {hosts}", lambda: cast(redis.Redis, client)


def _host_and_port(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"{text!r} has no host")
    return parts.hostname, parts.port or default_port
