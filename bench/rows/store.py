"""Rows: reading an embedding from the store."""

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import redis
from maskwire.cli.local_store import store_program
from maskwire_core.storage import large_get
from redis.connection import Connection

from bench.harness import Row
from bench.subject import packed
from testing.servers import store_server


def same(ours: Any, other: Any) -> str:
    assert ours.tobytes() == other.tobytes()
    return "identical"


class _Plain(Connection):
    """The connection that redis-py uses where hiredis is not installed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, parser_class=redis._parsers._RESP3Parser)


@contextlib.contextmanager
def rows() -> Iterator[Iterator[Row]]:
    value = packed("fp16")
    with store_server(store_program()) as url, redis.Redis.from_url(url) as fast:
        plain = redis.Redis(connection_pool=redis.ConnectionPool.from_url(url, connection_class=_Plain))
        fast.set("value", value)

        def get(client: redis.Redis) -> Any:
            return np.frombuffer(cast(bytes, client.get("value")), np.uint8)

        name = f"{len(value) >> 20} MiB embedding, Redis to array"
        yield iter(
            [
                Row(
                    name,
                    "redis-py's GET, as it installs",
                    0.25,
                    lambda: large_get.get(fast, "value"),
                    lambda: get(plain),
                    same,
                    40,
                ),
                Row(
                    name,
                    "redis-py's GET with hiredis",
                    0.7,
                    lambda: large_get.get(fast, "value"),
                    lambda: get(fast),
                    same,
                    40,
                ),
            ]
        )
