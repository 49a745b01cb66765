"""One encode for all encoders: who claims an image makes its embedding, the others wait for it."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator

from maskwire_core.errors import ServiceError
from maskwire_core.storage.embedding import Header
from maskwire_core.storage.store import Store

log = logging.getLogger(__name__)

CLAIM_MS = 3_000
"""After this time the work of an encoder that died, or stands still, is taken over."""
_RENEWALS = 3  # per CLAIM_MS
_FIRST_POLL_S, _LAST_POLL_S, _POLL_GROWTH = 0.01, 0.25, 1.5


@contextlib.asynccontextmanager
async def found_or_claimed(store: Store, namespace: str, key: str) -> AsyncIterator[tuple[Header, int] | None]:
    """Waits until an embedding is stored, or until it is this caller's turn to make it.

    The claim is kept for as long as the body runs. It may be lost all the same: the store may drop it, or this process
    may be stopped for longer than it lasts. Then somebody else makes the embedding too, and the later write replaces
    equal bytes.

    Args:
        store: Where embeddings and claims are.
        namespace: Tenant.
        key: Content key of the embedding.

    Yields:
        Header and size in bytes of the stored embedding; None when the body is to make and store it.

    Raises:
        Unavailable: The store does not answer.
        ResourceExhausted: The store has no memory left.
    """
    token = secrets.token_hex(16)
    pause_s = _FIRST_POLL_S
    while True:
        # Claimed first, looked up second: who stores an embedding gives up the claim only after.
        claimed = await asyncio.to_thread(store.claim, namespace, key, token, CLAIM_MS)
        try:
            found = await asyncio.to_thread(store.find_embedding, namespace, key)
            if found is not None:
                yield found[0], found[1]
                return
            if claimed:
                async with _renewed(store, namespace, key, token):
                    yield None
                return
        finally:
            if claimed:
                with contextlib.suppress(ServiceError):  # it ends by itself
                    await asyncio.to_thread(store.release_claim, namespace, key, token)
        # The longer it takes, the less a late look costs in proportion.
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * _POLL_GROWTH, _LAST_POLL_S)


@contextlib.asynccontextmanager
async def _renewed(store: Store, namespace: str, key: str, token: str) -> AsyncIterator[None]:
    async def renew() -> None:
        while True:
            await asyncio.sleep(CLAIM_MS / 1e3 / _RENEWALS)
            try:
                if not await asyncio.to_thread(store.renew_claim, namespace, key, token, CLAIM_MS):
                    log.warning("the claim on %s is lost; another encoder may encode it too", key)
                    return
            except ServiceError as error:
                log.warning("a claim could not be renewed: %s", error)

    task = asyncio.create_task(renew())
    try:
        yield
    finally:
        task.cancel()
