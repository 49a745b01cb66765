"""Segments images that labelling tools send whole with each click."""

from collections.abc import Sequence

from maskwire import AsyncClient, EmbeddedImage, InvalidRequest, MaskwireError, Result
from maskwire.model_names import canonical
from maskwire.output_options import Format
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
        wanted = canonical(self._model)
        names = [model.name for model in models if (model.name == wanted if wanted else model.is_default)]
        if not names:
            known = [model.name for model in models]
            raise Problem(
                404,
                f"{no_such('model', self._model, known)} (the adapter was started with --model {self._model})",
                "MODEL_NOT_FOUND",
                "model",
            )
        return names[0]

    async def embed(self, image: bytes, field: str, bulk: bool = False) -> EmbeddedImage:
        """Makes an image ready for prompts.

        Args:
            image: The image file.
            field: Path of the image in the tool's request, for errors.
            bulk: Low priority: images that somebody waits for go first.
        """
        # Equal images share a name that is made of their content, so that clicks leave no new names behind.
        try:
            return await self.client.embed(image, Source(image).content_name(), model=self._model, bulk=bulk)
        except MaskwireError as error:
            if error.reason == "MODEL_NOT_FOUND":
                await self.model()
            elif isinstance(error, InvalidRequest):
                error.field = field
            raise

    async def segment(
        self, image: EmbeddedImage, objects: Sequence[Marks], *outputs: Format, field: str
    ) -> list[Result]:
        """Returns the best mask of each object.

        Args:
            image: What `embed` returned.
            objects: What was marked, one entry for each object.
            outputs: Forms of the masks.
            field: Path of the marks in the tool's request, for errors.
        """
        prompts = [marks.prompt(image.width, image.height) for marks in objects]
        try:
            return await self.client.segment_objects(image, prompts, outputs=outputs)
        except InvalidRequest as error:
            error.field = field
            raise
