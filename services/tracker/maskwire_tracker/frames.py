"""The frames of a track: their files, their embeddings, and what is embedded ahead of the one that is followed."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from maskwire_core.errors import InvalidArgument, NotFound
from maskwire_core.scheduling.byte_budget import Account
from maskwire_core.storage.embedding import Embedding
from maskwire_core.storage.store import Store
from numpy.typing import NDArray

_MOST_SENT_AGAIN = 64  # frames that a caller keeps for a tracker that takes over
_PATIENCE_S = 30  # how long to wait for memory for a frame's embedding


class FrameFiles(Protocol):
    """Where the files of a track's frames are."""

    async def read(self, index: int) -> "bytes | str":
        """Returns a frame's file, or the content key of its embedding. Raises `NotFound` where it is gone."""
        ...


class LiveFrames:
    """The newest frames of a stream, and at most 64 that were not followed yet: a tracker that takes over is sent them
    again before it is asked to follow.

    Args:
        kept: How many of the newest are kept.
        frames: Number of frames before the first one that comes now.

    Attributes:
        count: Number of frames so far.
    """

    def __init__(self, kept: int, frames: int) -> None:
        self.count = frames
        self._kept = kept
        self._followed = frames  # number of frames up to the newest that was followed
        self._frames: OrderedDict[int, tuple[bytes | str, int]] = OrderedDict()

    def add(self, content: bytes | str, captured_at_us: int) -> int:
        """Adds the next frame. Returns the bytes of files that were dropped for it."""
        self._frames[self.count] = content, captured_at_us
        self.count += 1
        dropped = 0
        while self._may_drop():
            gone, _ = self._frames.popitem(last=False)[1]
            dropped += len(gone) if isinstance(gone, bytes) else 0
        return dropped

    def followed(self, index: int) -> None:
        """Notes that objects were followed to a frame."""
        self._followed = max(self._followed, index + 1)

    @property
    def done_with(self) -> int:
        """Number of frames that a tracker which takes over need not be sent again."""
        return max(self._followed, self.count - _MOST_SENT_AGAIN)

    def _may_drop(self) -> bool:
        """Whether the oldest frame may go."""
        return len(self._frames) > self._kept and next(iter(self._frames)) < self.done_with

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
    nbytes: int  # of an embedding's tensors


class FrameEmbeddings:
    """Embeddings of frames. They come from the encoder when they are needed or a little before, and take memory until
    they are dropped.

    Args:
        files: Where the frames are.
        embed: Has a file embedded.
        store: Where the embeddings are that callers name.
        expected: What they must be of.
        memory: On whose account they are; closed with this.
    """

    def __init__(
        self,
        files: FrameFiles,
        embed: Callable[[bytes], Awaitable[Embedding]],
        store: Store,
        expected: Expected,
        memory: Account,
    ) -> None:
        self._files, self._embed, self._store, self._expected = files, embed, store, expected
        self._memory = memory
        self._coming: dict[int, asyncio.Task[Embedding]] = {}

    async def get(self, index: int, ahead: Sequence[int] = ()) -> Mapping[str, NDArray[Any]]:
        """Returns a frame's embedding, by the names of its tensors.

        Args:
            index: The frame.
            ahead: Frames that will be needed next, the next one first. They are embedded meanwhile, as far as there is
                memory.

        Raises:
            ServiceError: It cannot be embedded or read, is of another size or model, or there is no memory for it.
        """
        self.drop(keep=(index, *ahead))
        if index not in self._coming:
            await self._memory.wait(self._expected.nbytes, _PATIENCE_S)
            self._begin(index)
        for other in ahead:
            if other not in self._coming:
                if not self._memory.try_take(self._expected.nbytes):
                    break
                self._begin(other)
        try:
            return self._checked(index, await self._coming[index]).tensors
        except BaseException:
            self.drop(keep=self._coming.keys() - {index})
            raise

    def drop(self, keep: Collection[int] = ()) -> None:
        """Drops embeddings that are not needed any more, whether they have come or not."""
        for index in self._coming.keys() - set(keep):
            self._coming.pop(index).cancel()
            self._memory.give_back(self._expected.nbytes)

    def close(self) -> None:
        """Drops all embeddings."""
        self.drop()
        self._memory.close()

    def _begin(self, index: int) -> None:
        task = self._coming[index] = asyncio.create_task(self._embedding(index))
        # Its error is that of whoever needs the frame, if anybody does.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _embedding(self, index: int) -> Embedding:
        content = await self._files.read(index)
        if isinstance(content, bytes):
            return await self._embed(content)
        found = await asyncio.to_thread(self._store.get_embedding, self._expected.namespace, content)
        if found is None:
            raise NotFound(
                "EMBEDDING_EXPIRED", f"the embedding of frame {index} is gone; embed it again", field="frame"
            )
        return found

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
