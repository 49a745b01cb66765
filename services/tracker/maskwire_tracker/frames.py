"""The frames of a track: their files, their embeddings, and what is encoded ahead of the one that is followed."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from maskwire_core.errors import InvalidArgument, NotFound, Unavailable
from maskwire_core.storage.embedding import Embedding
from maskwire_core.storage.quotas import Quotas
from maskwire_core.storage.store import Store
from numpy.typing import NDArray

from maskwire_tracker.encoding import EncodedFrame

_TRIES = 3  # of encoding a frame whose embedding is gone when it is read


class FrameFiles(Protocol):
    """Where the files of a track's frames are."""

    async def read(self, index: int) -> "bytes | str":
        """Returns a frame's file, or the content key of its embedding. Raises `NotFound` where it is gone."""
        ...


class LiveFrames:
    """The newest frames of a stream.

    Args:
        kept: How many are kept.
        frames: Number of frames before the first one that comes now.
    """

    def __init__(self, kept: int, frames: int) -> None:
        self.count = frames
        self._kept = kept
        self._frames: OrderedDict[int, tuple[bytes | str, int]] = OrderedDict()

    def add(self, content: bytes | str, captured_at_us: int) -> int:
        """Adds the next frame. Returns the bytes of files that were dropped for it."""
        self._frames[self.count] = content, captured_at_us
        self.count += 1
        dropped = 0
        while len(self._frames) > self._kept:
            gone, _ = self._frames.popitem(last=False)[1]
            dropped += len(gone) if isinstance(gone, bytes) else 0
        return dropped

    def captured_at_us(self, index: int) -> int:
        """Returns when a frame was taken, as its caller said."""
        return self._frames.get(index, (b"", 0))[1]

    async def read(self, index: int) -> bytes | str:
        if index not in self._frames:
            raise NotFound(
                "FRAME_GONE",
                f"frame {index} is not among the {len(self._frames)} newest of the {self.count} that came; raise "
                "kept_frames, or upload a clip",
                field="frame",
            )
        return self._frames[index][0]


class ClipFrames:
    """The frames of a stored clip.

    Args:
        read: Reads a frame's file; None where the clip is gone.
        clip_id: The clip's name.
    """

    def __init__(self, read: Callable[[int], bytes | None], clip_id: str) -> None:
        self._read, self._clip_id = read, clip_id

    async def read(self, index: int) -> bytes | str:
        file = await asyncio.to_thread(self._read, index)
        if file is None:
            raise NotFound(
                "CLIP_NOT_FOUND",
                f"frame {index} of the clip {self._clip_id!r} is gone: it was deleted or replaced, or has expired; "
                "upload it again, and open another track",
                field="open.clip_id",
            )
        return file


@dataclass(frozen=True)
class Expected:
    """What the embeddings of a track's frames must be of."""

    namespace: str  # tenant
    fingerprint: str  # of the model
    width: int  # in pixels
    height: int  # likewise


class FrameEmbeddings:
    """Embeddings of frames, which are encoded when they are needed or a little before, and deleted afterwards.

    Args:
        files: Where the frames are.
        encode: Has a file encoded.
        store: Where embeddings are.
        expected: What they must be of.
    """

    def __init__(
        self,
        files: FrameFiles,
        encode: Callable[[bytes], Awaitable[EncodedFrame]],
        store: Store,
        expected: Expected,
    ) -> None:
        self._files, self._encode, self._store, self._expected = files, encode, store, expected
        self._quotas = Quotas(store)
        self._encoded: dict[int, asyncio.Task[EncodedFrame]] = {}

    async def get(self, index: int, ahead: Iterable[int] = ()) -> Mapping[str, NDArray[Any]]:
        """Returns a frame's embedding, by the names of its tensors.

        Args:
            index: The frame.
            ahead: Frames that will be needed next, which are encoded meanwhile.

        Raises:
            ServiceError: It cannot be encoded or read, or is of another size or model.
        """
        wanted = {index, *ahead}
        for other in wanted:
            self._begin(other)
        await self._drop(keep=wanted)
        for _ in range(_TRIES):
            try:
                encoded = await self._encoded[index]
            except BaseException:
                self._encoded.pop(index, None)
                raise
            found = await asyncio.to_thread(self._store.get_embedding, self._expected.namespace, encoded.content_key)
            if found is not None:
                return self._checked(index, found).tensors
            if not encoded.width:
                raise NotFound(
                    "EMBEDDING_EXPIRED", f"the embedding of frame {index} is gone; embed it again", field="frame"
                )
            del self._encoded[index]
            self._begin(index)
        raise Unavailable("EMBEDDING_EVICTED", "the store keeps no embeddings; it needs more memory", retry_after_s=5)

    async def close(self) -> None:
        """Deletes what was encoded for this track."""
        await self._drop(keep=())

    def _begin(self, index: int) -> None:
        if index not in self._encoded:
            task = self._encoded[index] = asyncio.create_task(self._encode_frame(index))
            # Its error is that of whoever needs the frame, if anybody does.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _encode_frame(self, index: int) -> EncodedFrame:
        content = await self._files.read(index)
        return EncodedFrame(content, 0, 0, False) if isinstance(content, str) else await self._encode(content)

    async def _drop(self, keep: Iterable[int]) -> None:
        for index in self._encoded.keys() - set(keep):
            task = self._encoded.pop(index)
            if not task.done():
                task.cancel()
            elif not task.cancelled() and task.exception() is None and task.result().is_ours:
                with contextlib.suppress(Unavailable):  # it expires soon
                    await asyncio.to_thread(
                        self._quotas.drop_embedding, self._expected.namespace, task.result().content_key
                    )

    def _checked(self, index: int, found: Embedding) -> Embedding:
        header, expected = found.header, self._expected
        if (header.width, header.height) != (expected.width, expected.height):
            raise InvalidArgument(
                "FRAME_SIZE",
                f"frame {index} has {header.width}x{header.height} pixels; those of this track have "
                f"{expected.width}x{expected.height}",
                field="frame",
            )
        if header.fingerprint != expected.fingerprint:
            raise InvalidArgument(
                "OTHER_MODEL", f"frame {index} was embedded with another model, {header.model!r}", field="frame"
            )
        if header.codec == "klt":
            raise InvalidArgument(
                "BAD_DATA_TYPE",
                f"frame {index} is stored as klt, which trackers do not read; embed it with stored_as DATA_TYPE_FP32",
                field="frame",
            )
        return found
