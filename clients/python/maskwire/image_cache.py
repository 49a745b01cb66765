"""What a client remembers of the images it embedded."""

from collections import OrderedDict
from collections.abc import Hashable

from maskwire.results import EmbeddedImage
from maskwire.sources import Source

_MAX_IMAGES = 1024
_MAX_BYTES = 256 << 20


class Memory:
    """The most recent images: not to ask twice whether they are stored, to embed again what is gone, and to draw on.

    Paths are kept as paths; of images that came as bytes, up to 256 MiB are held.
    """

    def __init__(self) -> None:
        self._stored: OrderedDict[tuple[Hashable, str | None, str], EmbeddedImage] = OrderedDict()
        self._sources: OrderedDict[str, tuple[Source, EmbeddedImage]] = OrderedDict()

    def add(self, identity: Hashable, asked_id: str | None, model: str, source: Source, stored: EmbeddedImage) -> None:
        """Remembers an embed.

        Args:
            identity: The source's identity before it was read.
            asked_id: The name that it was to get; None if the server issued one.
            model: The model that was asked for; empty for the default.
            source: The image.
            stored: What the encoder answered.
        """
        for name in {model, ""}:  # who names no model takes what there is
            self._stored[identity, asked_id, name] = stored
            self._stored.move_to_end((identity, asked_id, name))
        self._sources[stored.image_id] = (source, stored)
        self._sources.move_to_end(stored.image_id)
        while len(self._stored) > 2 * _MAX_IMAGES:
            self._stored.popitem(last=False)
        held = sum(source.held_bytes for source, _ in self._sources.values())
        while len(self._sources) > _MAX_IMAGES or (held > _MAX_BYTES and len(self._sources) > 1):
            _, (dropped, _) = self._sources.popitem(last=False)
            held -= dropped.held_bytes

    def stored(self, identity: Hashable, asked_id: str | None, model: str) -> EmbeddedImage | None:
        """What is stored of an image that was embedded under a name, or under none; by a model, or whichever if that is
        empty."""
        return self._stored.get((identity, asked_id, model))

    def knows(self, image_id: str) -> bool:
        """Whether an image was embedded under a name."""
        return image_id in self._sources

    def source(self, image_id: str, content_key: str | None = None) -> Source | None:
        """The image of a name; with a content key, only if it is that one's."""
        source, stored = self._sources.get(image_id, (None, None))
        return source if stored is not None and content_key in (None, stored.content_key) else None

    def model(self, image_id: str) -> str:
        """The model that embedded the image of a name; empty if that is not known."""
        return self._sources[image_id][1].model if image_id in self._sources else ""

    def forget(self, image_id: str) -> None:
        """Forgets a name, and that its image is stored."""
        self._sources.pop(image_id, None)
        for key in [key for key, stored in self._stored.items() if stored.image_id == image_id]:
            del self._stored[key]
