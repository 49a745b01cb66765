"""The images that a client has embedded."""

from collections import OrderedDict
from collections.abc import Hashable

from maskwire.results import EmbeddedImage
from maskwire.sources import Source

_MAX_IMAGES = 1024
_MAX_BYTES = 256 << 20


class ImageCache:
    """The latest 1024 images, so as not to ask twice whether they are stored, to embed again what is gone, and to draw
    on their pictures.

    Files are kept as paths. Of images that came as bytes, up to 256 MiB are held.
    """

    def __init__(self) -> None:
        self._stored: OrderedDict[tuple[Hashable, str | None, str], EmbeddedImage] = OrderedDict()
        self._sources: OrderedDict[str, tuple[Source, EmbeddedImage]] = OrderedDict()

    def add(self, identity: Hashable, asked_id: str | None, model: str, source: Source, stored: EmbeddedImage) -> None:
        """Remembers an image that was embedded.

        Args:
            identity: The picture's `Source.identify()`, taken before it was read.
            asked_id: The name that the image was to get; None if the server issued one.
            model: The model that was asked for; empty for the default.
            source: Its picture.
            stored: What the encoder answered.
        """
        for name in {model, ""}:  # a caller that names no model takes any
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
        """Returns what is stored of a picture that was embedded under a name (None: an issued one) by a model (empty:
        any); None if it was not."""
        return self._stored.get((identity, asked_id, model))

    def knows(self, image_id: str) -> bool:
        """Whether an image was embedded under a name."""
        return image_id in self._sources

    def source(self, image_id: str, content_key: str | None = None) -> Source | None:
        """Returns the picture of a name; with a content key, only if that is still the image's; None if unknown."""
        source, stored = self._sources.get(image_id, (None, None))
        return source if stored is not None and content_key in (None, stored.content_key) else None

    def model(self, image_id: str) -> str:
        """Returns the model that embedded the image of a name; empty if unknown."""
        return self._sources[image_id][1].model if image_id in self._sources else ""

    def forget(self, image_id: str) -> None:
        """Forgets a name, and that its image is stored."""
        self._sources.pop(image_id, None)
        for key in [key for key, stored in self._stored.items() if stored.image_id == image_id]:
            del self._stored[key]
