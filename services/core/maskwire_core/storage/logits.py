"""The logits of prompts, saved beside embeddings so that any decoder can go on from them.

They expire, and are deleted for good with their embedding (`deletions.erase`).
"""

import time
from collections.abc import Sequence
from typing import cast

from maskwire_core.storage import keys
from maskwire_core.storage.store import Store


def save_logits(store: Store, namespace: str, key: str, prompts: bytes, logits: bytes, ttl_s: int) -> list[bytes]:
    """Saves the logits of prompts on an embedding, unless that is not stored: what was deleted leaves nothing.

    Returns:
        All prompts with saved logits on this embedding, the least recently used first.
    """
    index, values = keys.prompts(namespace, key), keys.logits(namespace, key)
    with store.connections.commands() as client:
        pipeline = client.pipeline()
        pipeline.hset(values, prompts, logits)
        pipeline.zadd(index, {prompts: time.time()})
        pipeline.pexpire(values, ttl_s * 1000)
        pipeline.pexpire(index, ttl_s * 1000)
        pipeline.zrange(index, 0, -1)
        pipeline.exists(keys.embedding(namespace, key))
        *_, saved, is_stored = pipeline.execute()
        if is_stored:
            return cast(list[bytes], saved)
        client.zrem(index, prompts)
        client.hdel(values, prompts)
        return []


def saved_prompts(store: Store, namespace: str, key: str) -> list[bytes]:
    """Prompts with saved logits on an embedding, the least recently used first."""
    with store.connections.commands() as client:
        return cast(list[bytes], client.zrange(keys.prompts(namespace, key), 0, -1))


def get_logits(store: Store, namespace: str, key: str, prompts: bytes) -> bytes | None:
    """Reads the saved logits of prompts and marks them as used."""
    with store.connections.commands() as client:
        pipeline = client.pipeline()
        pipeline.zadd(keys.prompts(namespace, key), {prompts: time.time()}, xx=True)
        pipeline.hget(keys.logits(namespace, key), prompts)
        return cast(bytes | None, pipeline.execute()[-1])


def drop_logits(store: Store, namespace: str, key: str, prompts: Sequence[bytes]) -> None:
    """Deletes the saved logits of prompts."""
    with store.connections.commands() as client:
        pipeline = client.pipeline()
        pipeline.zrem(keys.prompts(namespace, key), *prompts)
        pipeline.hdel(keys.logits(namespace, key), *prompts)
        pipeline.execute()
