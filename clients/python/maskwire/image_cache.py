"""A client's cache of the images that it embedded."""

from collections import OrderedDict
from collections.abc import Hashable

from maskwire.embedded_image import EmbeddedImage
from maskwire.regions import Place
from maskwire.sources import Source

_MAX_IMAGES = 1024
_MAX_BYTES = 256 << 20


class ImageCache:
    """The 1024 images that were embedded last: to know that they are stored, to embed them again, and to draw on them.

    Files are kept as their paths; of other images, up to 256 MiB are held in memory.
    """

    def __init__(self) -> None:
        self._stored: OrderedDict[tuple[Hashable, str | None, str], EmbeddedImage] = OrderedDict()
        self._sources: OrderedDict[str, tuple[Source, EmbeddedImage]] = OrderedDict()
        self._regions: OrderedDict[tuple[str, Place], EmbeddedImage] = OrderedDict()
        self._images: dict[str, str] = {}  # content keys of images by those of their regions

    def add(self, identity: Hashable, asked_id: str | None, model: str, source: Source, stored: EmbeddedImage) -> None:
        """Adds an image.

        Args:
            identity: Result of `Source.identify()` before the image was read.
            asked_id: Name that was requested; None if the server made one up.
            model: Model that was requested; empty for the default.
            source: The image.
            stored: Response of the encoder.
        """
        for name in {model, ""}:  # a call that names no model accepts any
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

    def add_region(self, image: str, place: Place, stored: EmbeddedImage) -> None:
        """Adds a region of the image whose embedding has the content key `image`."""
        self._regions[image, place] = stored
        self._images[stored.content_key] = image
        if len(self._regions) > _MAX_IMAGES:
            _, dropped = self._regions.popitem(last=False)
            self._images.pop(dropped.content_key, None)

    def region(self, image: str, place: Place) -> EmbeddedImage | None:
        """Returns what is stored of a region of an image; None if it was not embedded by this client."""
        return self._regions.get((image, place))

    def forget_region(self, image: str, place: Place) -> None:
        """Forgets that a region is stored."""
        self._regions.pop((image, place), None)

    def stored(self, identity: Hashable, asked_id: str | None, model: str) -> EmbeddedImage | None:
        """Returns the stored image of a source that was embedded under the given requested name by the given model (by
        any if that is empty); None if there is none."""
        return self._stored.get((identity, asked_id, model))

    def knows(self, image_id: str) -> bool:
        """Returns whether an image was embedded under a name."""
        return image_id in self._sources

    def source(self, image_id: str, content_key: str | None = None) -> Source | None:
        """Returns the picture of a name; with a content key, only if that is still the image's or one of its regions';
        None if unknown."""
        source, stored = self._sources.get(image_id, (None, None))
        image = self._images.get(content_key or "", content_key)
        return source if stored is not None and image in (None, stored.content_key) else None

    def model(self, image_id: str) -> str:
        """Returns the model that embedded the image of a name; empty if unknown."""
        return self._sources[image_id][1].model if image_id in self._sources else ""

    def forget(self, image_id: str) -> None:
        """Forgets a name, and that its image is stored."""
        self._sources.pop(image_id, None)
        for key in [key for key, stored in self._stored.items() if stored.image_id == image_id]:
            del self._stored[key]
