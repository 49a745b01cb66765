"""Images that come whole with each click, as labelling tools send them."""

import hashlib
from collections.abc import Callable

from maskwire import AsyncClient, InvalidRequest, Prompt
from maskwire.prompts import Format
from maskwire.results import EmbeddedImage, Result


class Segmenter:
    """Segments one object of an image; equal images are encoded once.

    Args:
        client: Of the servers.
        model: Name of the model; empty for the servers' default.
    """

    def __init__(self, client: AsyncClient, model: str = "") -> None:
        self.client = client
        self._model = model

    async def model(self) -> str:
        """The name of the model that answers."""
        models = await self.client.models()
        names = [model.name for model in models if (model.name == self._model if self._model else model.is_default)]
        if not names:
            raise InvalidRequest(f"no model {self._model!r} is served; see maskwire models list", "NO_MODEL", "model")
        return names[0]

    async def segment(self, image: bytes, prompt: Callable[[EmbeddedImage], Prompt], *outputs: Format) -> Result:
        """The best mask for a prompt.

        Args:
            image: The file.
            prompt: Makes it, for an image of that size.
            outputs: Forms of the mask.
        """
        # A name of its own for each content: equal images share it, so that clicks leave no new names behind.
        name = f"sha256-{hashlib.sha256(image).hexdigest()}"
        try:
            embedded = await self.client.embed(image, name, model=self._model)
        except InvalidRequest as error:
            error.field = "image" if error.field == "chunk" else error.field
            raise
        (result,) = await self.client.segment_objects(image, [prompt(embedded)], image_id=name, outputs=outputs)
        return result
