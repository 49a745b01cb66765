"""Segments images that labelling tools send whole with each click."""

from collections.abc import Callable, Sequence

from maskwire import AsyncClient, EmbeddedImage, InvalidRequest, MaskwireError, Result
from maskwire.prompts import Format
from maskwire.sources import Source
from maskwire.suggest import no_such
from maskwire_core.http.problems import Problem

from maskwire_adapters.marks import Marks


class Segmenter:
    """Segments objects of an image; equal images are encoded once.

    Args:
        client: Connected to the encoder and the decoders.
        model: Name of the model; empty for the encoder's default.

    Attributes:
        client: As given.
    """

    def __init__(self, client: AsyncClient, model: str = "") -> None:
        self.client = client
        self._model = model

    async def model(self) -> str:
        """The name of the model that answers.

        Raises:
            Problem: MODEL_NOT_FOUND: the encoder does not serve the model that the adapter was started with.
        """
        models = await self.client.models()
        names = [model.name for model in models if (model.name == self._model if self._model else model.is_default)]
        if not names:
            known = [model.name for model in models]
            raise Problem(
                404,
                f"{no_such('model', self._model, known)} (the adapter was started with --model {self._model})",
                "MODEL_NOT_FOUND",
                "model",
            )
        return names[0]

    async def segment(
        self,
        image: bytes,
        objects: Callable[[EmbeddedImage], Sequence[Marks]],
        *outputs: Format,
        image_field: str,
        marks_field: str,
    ) -> list[Result]:
        """Returns the best mask of each object.

        Args:
            image: The image file.
            objects: Returns what was marked, one entry for each object, once the image's size is known.
            outputs: Forms of the masks.
            image_field: Path of the image in the tool's request, for errors.
            marks_field: Path of the marks in the tool's request, for errors.

        Raises:
            Problem: The model does not exist, or a mark is wrong; `field` is a path in the tool's request.
            InvalidRequest: The servers refuse the image or the marks; `field` likewise.
            MaskwireError: The servers do not answer, or refuse the token.
        """
        # Equal images share a name that is made of their content, so that clicks leave no new names behind.
        name = Source(image).content_name()
        try:
            embedded = await self.client.embed(image, name, model=self._model)
        except MaskwireError as error:
            if error.reason == "MODEL_NOT_FOUND":
                await self.model()
            elif isinstance(error, InvalidRequest):
                error.field = image_field
            raise
        prompts = [marks.prompt(embedded.width, embedded.height) for marks in objects(embedded)]
        try:
            return await self.client.segment_objects(image, prompts, image_id=name, outputs=outputs)
        except InvalidRequest as error:
            error.field = marks_field
            raise
