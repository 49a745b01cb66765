"""Files for callers who decode by themselves: stored embeddings, and the graphs of exported decoders."""

import asyncio
import hashlib
from collections.abc import Callable, Hashable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from maskwire.v1 import decoder_pb2 as pb
from maskwire_core import names
from maskwire_core.call_context import current
from maskwire_core.cold_tier.tier import ColdTier
from maskwire_core.errors import InvalidArgument, NotFound, PermissionDenied, embedding_expired
from maskwire_core.models.graph_archive import GraphArchive
from maskwire_core.scheduling.executors import ThreadScheduler
from maskwire_core.scheduling.fair_queue import Limits, Requester
from maskwire_core.scheduling.scheduler import Demand
from maskwire_core.storage.codecs import CODECS, CONVERTIBLE, NotFinite
from maskwire_core.storage.embedding import Header, convert, read_header
from maskwire_core.storage.exports import decoder_bytes, get_decoder
from maskwire_core.storage.store import Store
from maskwire_core.telemetry import logs
from numpy.typing import NDArray

from maskwire_decoder.images import Images

CHUNK_BYTES = 1 << 16
_COPIES = 4  # of a bundle while it is packed: as the store has it, its arrays, these as files, and what is made of them
_WAIT_S = 10.0  # for memory


def _compact(array: NDArray[Any]) -> NDArray[Any]:
    """Returns fp32 values in half precision if that has them exactly."""
    halved = _halved(array)
    return halved if np.array_equal(halved, array) else array


def _halved(array: NDArray[Any]) -> NDArray[Any]:
    """Returns fp32 values in half precision, rounded; as they are if that is too small for one of them."""
    if array.dtype != np.float32 or np.abs(array).max(initial=0) > np.finfo(np.float16).max:
        return array
    return array.astype(np.float16)


WEIGHTS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "": lambda array: array,
    "compact": _compact,
    "half": _halved,
}
"""How weights are given out, by the names that requests have for it."""


@dataclass(frozen=True)
class File:
    """A file, or no more than its description if the caller has it."""

    etag: str  # equal exactly if the bytes are
    content: memoryview | None  # its bytes; None if the caller has them

    @property
    def info(self) -> pb.FileInfo:
        """Describes it."""
        return pb.FileInfo(etag=self.etag, total_bytes=0 if self.content is None else self.content.nbytes)

    def chunks(self, part: pb.FilePart) -> Iterator[bytes]:
        """Yields what the caller wants of it: all of it, if the part is empty or of another version."""
        if self.content is None:
            return
        wanted = self.content
        if part.if_etag in ("", self.etag):
            wanted = wanted[part.first_byte :]
            wanted = wanted[: part.max_bytes] if part.max_bytes else wanted
        for start in range(0, wanted.nbytes, CHUNK_BYTES):
            yield bytes(wanted[start : start + CHUNK_BYTES])


class Downloads:
    """Finds files, on the account of the call that is being answered: its namespaces and its memory.

    Args:
        allowed: Whether there are any.
        images: Knows what names stand for.
        store: Has embeddings and decoders.
        cold: Has embeddings that left the store, if anything does.
        scheduler: Its threads turn embeddings into other codecs.
    """

    def __init__(
        self, allowed: bool, images: Images, store: Store, cold: ColdTier | None, scheduler: ThreadScheduler
    ) -> None:
        self._allowed = allowed
        self._images = images
        self._store = store
        self._cold = cold
        self._scheduler = scheduler

    async def embedding(self, request: pb.GetEmbeddingRequest, connection: Hashable) -> File:
        """Finds an embedding.

        Args:
            request: Names it.
            connection: Where the request came from; see `Requester`.

        Raises:
            ServiceError: See `GetEmbedding` in decoder.proto.
        """
        self._check_allowed()
        if request.codec and request.codec not in CODECS:
            known = ", ".join(CODECS)
            raise InvalidArgument("BAD_CODEC", f"no codec {request.codec[:20]!r}; there are {known}", field="codec")
        namespace = current().caller.reading(request.namespace)
        image_id, key = names.image_id(request.image_id), names.content_key(request.content_key)
        logs.bind(namespace, image_id)
        key = key or await self._images.content_key(namespace, image_id)
        header, value = await self._find(namespace, image_id, key)
        codec = request.codec or header.codec
        if _etag(header, codec) in request.known_etags:
            return File(_etag(header, codec), None)
        if value is None:
            value = await asyncio.to_thread(self._store.get_embedding_value, namespace, key)
            if value is None:
                raise embedding_expired(image_id)
            header, _ = read_header(value)  # it may have been embedded again just now
        etag = _etag(header, codec)
        if codec == header.codec:
            return File(etag, value)
        if header.codec not in CONVERTIBLE or codec not in CONVERTIBLE:
            raise _not_available(f"the embedding is stored as {header.codec}, which cannot be turned into {codec}")
        more = 2 * CONVERTIBLE[header.codec] * value.nbytes  # its values, and what is made of them
        await current().memory.wait(more, _WAIT_S)
        try:
            demand = Demand(Requester(header.namespace, connection))
            converted = (await self._scheduler.run(demand, convert, value, codec)).result
        except NotFinite as error:
            raise _not_available(str(error)) from error
        current().memory.give_back(value.nbytes + more - len(converted))
        return File(etag, memoryview(converted))

    async def decoder(self, request: pb.GetDecoderRequest, connection: Hashable) -> File:
        """Packs graphs of an exported decoder, as a `GraphArchive`, in the tenant's turn.

        Args:
            request: Names them.
            connection: Where the request came from; see `Requester`.

        Raises:
            ServiceError: See `GetDecoder` in decoder.proto.
        """
        self._check_allowed()
        digest, wanted, present = names.decoder(request.decoder), sorted({*request.graphs}), sorted({*request.without})
        if not wanted:
            raise InvalidArgument("NO_SUCH_GRAPH", "graphs is empty; name at least one", field="graphs")
        if request.weights not in WEIGHTS:
            known = " and ".join(filter(None, WEIGHTS))
            raise InvalidArgument(
                "BAD_WEIGHTS", f"weights is {request.weights[:20]!r}; there are {known}", field="weights"
            )
        choice = hashlib.sha256(" ".join((request.weights, *wanted, "-", *present)).encode()).hexdigest()
        etag = f"{digest}-{choice[:16]}"
        nbytes = await asyncio.to_thread(decoder_bytes, self._store, digest)
        if not nbytes:
            raise NotFound("DECODER_NOT_FOUND", f"no exported decoder {digest} is stored", field="decoder")
        if etag in request.known_etags:
            return File(etag, None)
        await current().memory.wait(_COPIES * nbytes, _WAIT_S)
        demand = Demand(Requester(current().caller.tenant, connection))
        packed = (await self._packer.run(demand, self._pack, digest, wanted, present, request.weights)).result
        current().memory.give_back(_COPIES * nbytes - len(packed))
        return File(etag, memoryview(packed))

    @cached_property
    def _packer(self) -> ThreadScheduler:
        """Packs one at a time, which takes a tenth of a second or more, and gives way to clicks."""
        return ThreadScheduler("packer", 1, Limits())

    def _check_allowed(self) -> None:
        if not self._allowed:
            raise PermissionDenied(
                "DOWNLOADS_OFF", "this server gives out no embeddings and decoders (--downloads); ask it for masks"
            )

    async def _find(self, namespace: str, image_id: str, key: str) -> tuple[Header, memoryview | None]:
        """Looks an embedding up, and takes memory for it. Returns its header, and its bytes if the cold tier has it."""
        stored = await asyncio.to_thread(self._store.find_embedding, namespace, key)
        if stored is not None:
            await current().memory.wait(stored.nbytes, _WAIT_S)
            return stored.header, None
        cold = None if self._cold is None else await self._cold.embedding(namespace, key)
        if cold is None:
            raise embedding_expired(image_id)
        await current().memory.wait(len(cold[1]), _WAIT_S)
        return cold[0].header, memoryview(cold[1])

    def _pack(self, digest: str, wanted: list[str], present: list[str], form: str) -> bytes:
        bundle = get_decoder(self._store, digest)
        if bundle is None:
            raise NotFound("DECODER_NOT_FOUND", f"no exported decoder {digest} is stored", field="decoder")
        for field, given in (("graphs", wanted), ("without", present)):
            if unknown := [name for name in given if name not in bundle.graphs]:
                known = ", ".join(sorted(bundle.graphs))
                raise InvalidArgument("NO_SUCH_GRAPH", f"no graph {unknown[0][:20]!r}; there are {known}", field=field)
        left_out = {weight for name in present for weight in bundle.graphs[name].weights}
        graphs = {name: bundle.graphs[name] for name in wanted}
        needed = {weight for graph in graphs.values() for weight in graph.weights} - left_out
        weights = {name: WEIGHTS[form](bundle.weights[name]) for name in needed}
        return GraphArchive(asdict(bundle.config), graphs, weights).pack(compressed=bool(form))


def _etag(header: Header, codec: str) -> str:
    """Tells embeddings apart; another encode of the same image may differ in rounding."""
    return f"{header.content_key}-{codec}-{header.created_at:.6f}"


def _not_available(found: str) -> InvalidArgument:
    return InvalidArgument("CODEC_NOT_AVAILABLE", f"{found}; leave codec out to take it as it is", field="codec")
