"""A lease in the store, so that of all encoders only one encodes an image while the others wait for its embedding."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator

from maskwire_core.errors import ServiceError
from maskwire_core.storage import keys
from maskwire_core.storage.embedding import StoredEmbedding
from maskwire_core.storage.store import Store

log = logging.getLogger(__name__)

LEASE_MS = 3_000
"""Milliseconds after which another encoder takes over from one that died or hangs."""
_RENEWALS = 3  # per LEASE_MS
_FIRST_POLL_S, _LAST_POLL_S, _POLL_GROWTH = 0.01, 0.25, 1.5


@contextlib.asynccontextmanager
async def found_or_leased(store: Store, namespace: str, key: str) -> AsyncIterator[StoredEmbedding | None]:
    """Waits until an embedding is in the store, or until this caller holds the lease on encoding it.

    The lease is renewed while the body runs. It can be lost all the same, if the store evicts it or this process is
    suspended for longer than `LEASE_MS`. Then another encoder makes the embedding too, and the later write replaces
    equal bytes.

    Args:
        store: Where embeddings and leases are.
        namespace: The tenant's namespace.
        key: Content key of the embedding.

    Yields:
        The stored embedding; None if the body must encode and store it.

    Raises:
        Unavailable: The store does not answer.
        ResourceExhausted: The store has no memory left.
    """
    lease, token = keys.lease(namespace, key), secrets.token_hex(16)
    pause_s = _FIRST_POLL_S
    while True:
        # The lease is taken before looking up: an encoder stores its embedding before it releases the lease.
        leasing = asyncio.create_task(asyncio.to_thread(store.take_lease, lease, token, LEASE_MS))
        try:
            leased = await asyncio.shield(leasing)
            found = await asyncio.to_thread(store.find_embedding, namespace, key)
            if found is not None:
                yield found
                return
            if leased:
                async with _renewed(store, lease, token):
                    yield None
                return
        finally:
            with contextlib.suppress(ServiceError):  # the lease expires by itself
                if await leasing:  # the store may still grant it to a caller that was cancelled
                    await asyncio.to_thread(store.release_lease, lease, token)
        # Pauses grow with the time waited, so that the delay they add stays proportionate to it.
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * _POLL_GROWTH, _LAST_POLL_S)


@contextlib.asynccontextmanager
async def _renewed(store: Store, lease: str, token: str) -> AsyncIterator[None]:
    async def renew() -> None:
        while True:
            await asyncio.sleep(LEASE_MS / 1e3 / _RENEWALS)
            try:
                if not await asyncio.to_thread(store.renew_lease, lease, token, LEASE_MS):
                    log.warning("lost %s; another encoder may encode the image too", lease)
                    return
            except ServiceError as error:
                log.warning("could not renew a lease: %s", error)

    task = asyncio.create_task(renew())
    try:
        yield
    finally:
        task.cancel()
