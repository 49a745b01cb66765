"""Exported models that a server has loaded."""

from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from maskwire_core.scheduling.single_flight import Flights

Model = TypeVar("Model")


class LoadedModels(Generic[Model]):
    """Models by digest. Those used lately stay in memory, and each is loaded once for all who ask meanwhile.

    Args:
        most: How many stay.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._loaded: OrderedDict[str, Model] = OrderedDict()
        self._loads: Flights[Model] = Flights()

    async def get(self, digest: str, load: Callable[[], Coroutine[Any, Any, Model]]) -> Model:
        """Returns a model.

        Args:
            digest: Its digest.
            load: Loads it; called if it is not in memory. What it raises is raised here.
        """
        found = self._loaded.get(digest)
        if found is None:
            found, _ = await self._loads.share(digest, load)
            self._loaded[digest] = found
            if len(self._loaded) > self._most:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(digest)
        return found
