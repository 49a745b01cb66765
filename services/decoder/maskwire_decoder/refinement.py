"""Logits of earlier requests, to be refined by later ones."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from maskwire_core.config import DecoderSettings
from maskwire_core.errors import InvalidArgument
from maskwire_core.storage.embedding import Header
from maskwire_core.storage.store import Store
from numpy.typing import NDArray

from maskwire_decoder.masks.rendering import clamp
from maskwire_decoder.prompts.parsing import Prompt

log = logging.getLogger(__name__)

_MAX_KEY_BYTES = 1 << 16
_CHECKSUM_BYTES = 8


@dataclass(frozen=True)
class _Shape:
    """Box and points of a prompt; points are sorted x, y, label."""

    box: tuple[float, ...] | None
    points: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, prompt: Prompt) -> "_Shape":
        labelled = zip(prompt.points.tolist(), prompt.labels.tolist(), strict=True)
        box = None if prompt.box is None else tuple(prompt.box.tolist())
        return cls(box, tuple(sorted((x, y, label) for (x, y), label in labelled)))

    def fits(self, other: "_Shape") -> bool:
        """Whether the other prompt has this one's box, and all of its points."""
        left = list(other.points)
        for point in self.points:
            if point not in left:
                return False
            left.remove(point)
        return self.box == other.box


class Refinement:
    """Saves and finds logits, shared by all decoders through the store.

    Args:
        settings: How long they are kept, and how much for one embedding: the least recently used leave first.
        store: Where they are.
    """

    def __init__(self, settings: DecoderSettings, store: Store) -> None:
        self._ttl_s = settings.saved_logits_ttl_s
        self._max_bytes = settings.saved_logits_bytes
        self._store = store

    def save(self, image: Header, prompts: Sequence[Prompt], logits: Sequence[NDArray[np.float32]]) -> None:
        """Saves the logits of prompts, SxS each. Blocks.

        Raises:
            InvalidArgument: They are too many.
        """
        shaped = sorted(zip(map(_Shape.of, prompts), logits, strict=True), key=lambda each: repr(each[0]))
        key = json.dumps([[shape.box, shape.points] for shape, _ in shaped]).encode()
        data = np.stack([clamp(each) for _, each in shaped]).astype("<f4").tobytes()
        if len(data) > self._max_bytes or len(key) > _MAX_KEY_BYTES:
            raise InvalidArgument(
                "TOO_MUCH_TO_SAVE", f"logits of {len(prompts)} prompts are too much; save fewer", field="save_logits"
            )
        value = xxhash.xxh3_64_digest(data) + data
        saved = self._store.save_logits(image.namespace, image.content_key, key, value, self._ttl_s)
        each_bytes = len(data) // len(prompts)
        total, surplus = 0, []
        for other in reversed(saved):
            total += len(json.loads(other)) * each_bytes
            if total > self._max_bytes:
                surplus.append(other)
        if surplus:
            self._store.drop_logits(image.namespace, image.content_key, surplus)

    def load(self, image: Header, prompts: Sequence[Prompt], mask_size: int) -> list[NDArray[np.float32] | None]:
        """SxS logits to refine for each prompt, or None; the rule is that of `load_logits` in decoder.proto. Blocks."""
        wanted = [_Shape.of(prompt) for prompt in prompts]
        points = sum(len(shape.points) for shape in wanted)
        best: tuple[tuple[bool, int], bytes, list[int]] | None = None
        for key in reversed(self._store.saved_prompts(image.namespace, image.content_key)):
            saved = [_Shape(box and tuple(box), tuple(map(tuple, points))) for box, points in json.loads(key)]
            count = sum(len(shape.points) for shape in saved)
            places = _match(saved, wanted)
            if places is None or (count, len(saved)) == (points, len(wanted)):
                continue
            rank = (count == points - 1, count)
            if best is None or rank > best[0]:
                best = (rank, key, places)
        found: list[NDArray[np.float32] | None] = [None] * len(wanted)
        if best is not None:
            _, key, places = best
            for place, logits in zip(places, self._read(image, key, len(places), mask_size), strict=False):
                found[place] = logits
        return found

    def _read(self, image: Header, key: bytes, count: int, mask_size: int) -> NDArray[np.float32]:
        """CxSxS; none at all if they have left the store or are damaged."""
        value = self._store.get_logits(image.namespace, image.content_key, key)
        data = value[_CHECKSUM_BYTES:] if value else b""
        if value is None or value[:_CHECKSUM_BYTES] != xxhash.xxh3_64_digest(data):
            if value is not None:
                log.warning("dropping damaged logits of %s", image.content_key)
            self._store.drop_logits(image.namespace, image.content_key, [key])
            return np.empty((0, mask_size, mask_size), np.float32)
        return np.frombuffer(data, "<f4").reshape(count, mask_size, mask_size).astype(np.float32)


def _match(saved: Sequence[_Shape], wanted: Sequence[_Shape]) -> list[int] | None:
    """A prompt of its own for each saved one, by augmenting paths (Kuhn's algorithm); None if there is no choice."""
    owner: dict[int, int] = {}

    def place(index: int, tried: set[int]) -> bool:
        fitting = [each for each in range(len(wanted)) if each not in tried and saved[index].fits(wanted[each])]
        for candidate in sorted(fitting, key=lambda each: len(wanted[each].points)):  # the closest first
            tried.add(candidate)
            if candidate not in owner or place(owner[candidate], tried):
                owner[candidate] = index
                return True
        return False

    if not all(place(index, set()) for index in range(len(saved))):
        return None
    places = {index: candidate for candidate, index in owner.items()}
    return [places[index] for index in range(len(saved))]
