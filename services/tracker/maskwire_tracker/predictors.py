"""The models that tracks are followed with, as encoders have published them."""

import asyncio
import logging

from maskwire_core.errors import CorruptValue, Internal, Unavailable
from maskwire_core.models.loaded import LoadedModels
from maskwire_core.storage.exports import get_decoder, get_tracker
from maskwire_core.storage.store import Store

from maskwire_tracker.hand_over import HandOverPredictor
from maskwire_tracker.predictor import TrackerPredictor

log = logging.getLogger(__name__)

_MOST = 4


class Predictors:
    """Loads models from the store; those used lately stay in memory.

    Args:
        store: Where they are published.
        threads: CPU threads of a run.
        cuda: Whether to take CUDA where it is; models that hand masks over stay on the CPU.
    """

    def __init__(self, store: Store, threads: int, cuda: bool) -> None:
        self._store, self._threads, self._cuda = store, threads, cuda
        self._loaded: LoadedModels[TrackerPredictor] = LoadedModels(_MOST)

    async def get(self, digest: str, hand_over: bool = False) -> TrackerPredictor:
        """Returns the model whose exported tracker has a digest, or decoder where masks are handed over.

        Raises:
            Unavailable: TRACKER_NOT_PUBLISHED.
            Internal: BAD_TRACKER: what the store has cannot be run.
        """
        return await self._loaded.get(digest, lambda: self._load(digest, hand_over))

    async def _load(self, digest: str, hand_over: bool) -> TrackerPredictor:
        def load() -> TrackerPredictor | None:
            if hand_over:
                decoder = get_decoder(self._store, digest)
                return None if decoder is None else HandOverPredictor(decoder, self._threads)
            bundle = get_tracker(self._store, digest)
            return None if bundle is None else TrackerPredictor(bundle, self._threads, self._cuda)

        try:
            found = await asyncio.to_thread(load)
        except CorruptValue as error:
            log.error("refusing the tracker %s of the store: %s", digest, error)
            raise Internal("BAD_TRACKER", "the tracker that the store has is none that an encoder wrote") from error
        if found is None:
            raise Unavailable(
                "TRACKER_NOT_PUBLISHED",
                "no encoder has published this model's tracker yet; is one running that uses the same store?",
                retry_after_s=1,
            )
        return found
