"""Answers a session's edits in regions that are chosen around their objects."""

from collections.abc import Sequence

from maskwire.connection import Connection
from maskwire.history import History
from maskwire.regions import Place, box_of, choose_regions
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire.wanted_image import Wanted


class Sharpener:
    """What a session with region="auto" asks beside its stream.

    Args:
        connection: Embeds regions, and asks decoders.
        output: The forms of the masks.
        multimask: Whether looks take the best of three candidates; None: as the server does.
    """

    def __init__(self, connection: Connection, output: types_pb2.OutputOptions, multimask: bool | None) -> None:
        self._connection = connection
        self._output = output
        self._look = types_pb2.OutputOptions(multimask=multimask)

    async def sharpen(self, image: Wanted, prompt_id: str, history: History) -> pb.SegmentResponse | None:
        """Answers an object's steps in a region around it; None where the whole image does as well.

        Args:
            image: The image, with its picture.
            prompt_id: The object's name.
            history: Its steps.

        Raises:
            MaskwireError: What `AsyncClient.segment` raises.
        """
        assert image.stored is not None
        prompt = history.prompt(prompt_id)

        async def look(place: Place, prompts: Sequence[types_pb2.Prompt]) -> list[Place]:
            answer = await self._ask(image, place, prompts, self._look)
            return [box_of(each.masks[0].rle) for each in answer.results]

        (place,) = await choose_regions([prompt], (image.stored.width, image.stored.height), look)
        if place is None:
            return None
        steps = types_pb2.Prompt(prompt_id=prompt_id, steps=history.steps)
        return await self._ask(image, place, [steps], self._output)

    async def _ask(
        self, image: Wanted, place: Place, prompts: Sequence[types_pb2.Prompt], output: types_pb2.OutputOptions
    ) -> pb.SegmentResponse:
        region = await self._connection.of_region(image, place)
        caller = self._connection.caller
        request = pb.SegmentRequest(
            image_id=region.image_id, namespace=caller.namespace, prompts=prompts, output=output, model=region.model
        )

        async def send(content_key: str) -> pb.SegmentResponse:
            request.content_key = content_key
            return await self._connection.servers.segment(request, caller)

        return await self._connection.ask(region, send)
