"""One image of a session: prompts whole, or as changes of named objects."""

from collections.abc import Callable, Hashable

from maskwire.v1 import decoder_pb2 as pb

from maskwire_decoder.images import Image
from maskwire_decoder.prompts.encoding import Prediction
from maskwire_decoder.prompts.parsing import Output, Prompt, read_output
from maskwire_decoder.segmenter import Segmenter, check_size, describe, predict, render
from maskwire_decoder.sessions.objects import Object, Objects, Step


class Scene:
    """Answers prompts on one image.

    The image is looked up for each request, so that idle sessions hold no embeddings.

    Args:
        segmenter: Images and worker threads.
        caller: Whose turns are taken.
        source: The image as it was asked for; its content key is set, and stays, whatever its name comes to mean.
        image: That image.
        max_bytes: Of logits that are kept for the objects.
        counters: Of the stream.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        caller: Hashable,
        source: pb.SetImage,
        image: Image,
        max_bytes: int,
        counters: pb.StreamCounters,
    ) -> None:
        self._segmenter = segmenter
        self._caller = caller
        self._source = pb.SetImage()
        self._source.CopyFrom(source)
        self._source.content_key = image.header.content_key
        self._objects = Objects(image.header, segmenter.limits, max_bytes)
        self._counters = counters

    def describe(self, image: Image) -> pb.SegmentedImage:
        return describe(image, self._source.image_id)

    async def segment(self, prompts: pb.StreamPrompts, response: pb.SegmentResponse) -> None:
        """Answers whole prompts."""
        image = await self._segmenter.find(self._source, response.timings)
        await self._segmenter.segment(self._caller, image, prompts, self._source.image_id, response)
        self._counters.decodes += len(response.results)

    async def edit(self, edit: pb.EditObject, response: pb.ObjectResult) -> None:
        """Changes an object and answers with its mask. After an error, nothing has changed."""
        output = read_output(edit.output)
        if edit.WhichOneof("change") == "remove":
            self._objects.remove(edit.object_id)
            response.object_id = edit.object_id
            return
        changed = self._objects.propose(edit)
        step, timings = changed.step, response.result.timings
        if not step.is_empty:
            image = await self._segmenter.find(self._source, timings)
            check_size(1, output, image)
            await self._decode(image, step.missing()[:-1], timings)
            known = step.prediction is not None
            prediction, queue_ms = await self._segmenter.turns.run(
                self._caller, True, self._mask, image, step, output, response.result
            )
            timings.queue_ms += queue_ms
            if not known:
                self._keep(step, prediction)
        self._objects.commit(edit.object_id, changed)
        _tell(changed, edit.object_id, response)

    def restore(self, message: pb.RestoreObject, response: pb.ObjectResult) -> None:
        """Brings an object back. Nothing is decoded."""
        _tell(self._objects.restore(message), message.object_id, response)

    async def prepare(self, message: pb.SegmentStreamRequest, timings: pb.SegmentTimings) -> Image:
        """Makes ready what `preview` needs: the image, and the masks that led to the object."""
        image = await self._segmenter.find(self._source, timings)
        if message.WhichOneof("request") == "edit":
            await self._decode(image, self._objects.propose(message.edit).step.missing()[:-1], timings)
        return image

    def preview(
        self,
        image: Image,
        message: pb.SegmentStreamRequest,
        response: pb.SegmentStreamResponse,
        timings: pb.SegmentTimings,
        wanted: Callable[[], bool],
    ) -> bool:
        """Answers a speculative request; changes nothing. Runs on a worker thread.

        Args:
            image: As `prepare` gave it.
            message: With one whole prompt, or a change of an object.
            response: Is filled in.
            timings: Of what was before.
            wanted: Asked after decoding; if it says no, no masks are made.

        Returns:
            False if the masks that led to the object are not there: prepare it.
        """
        if message.WhichOneof("request") == "edit":
            output = read_output(message.edit.output)
            changed = self._objects.propose(message.edit)
            if len(changed.step.missing()) > 1:
                return False
            check_size(1, output, image)
            response.object.result.timings.CopyFrom(timings)
            self._mask(image, changed.step, output, response.object.result, wanted)
            _tell(changed, message.edit.object_id, response.object)
            return True
        output = read_output(message.segment.output)
        (prompt,) = self._segmenter.read(message.segment.prompts, image)
        check_size(1, output, image)
        result = response.result
        result.timings.CopyFrom(timings)
        prediction, result.timings.decode_ms = predict(image, prompt, output.multimask, output.every)
        if wanted():
            answer, result.timings.mask_ms = render(image, prompt, prediction, output)
            result.results.append(answer)
            result.image.CopyFrom(self.describe(image))
        return True

    async def _decode(self, image: Image, steps: list[Step], timings: pb.SegmentTimings) -> None:
        """Decodes steps on the way to one whose mask is wanted."""
        for step in steps:
            (prediction, decode_ms), queue_ms = await self._segmenter.turns.run(
                self._caller, True, predict, image, self._prompt(step, image), step.multimask, False
            )
            self._keep(step, prediction)
            timings.queue_ms += queue_ms
            timings.decode_ms += decode_ms

    def _mask(
        self,
        image: Image,
        step: Step,
        output: Output,
        response: pb.SegmentResponse,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Prediction:
        """The masks of a step, decoded if they are not there. Runs on a worker thread."""
        prompt, prediction, timings = self._prompt(step, image), step.prediction, response.timings
        if prediction is None:
            prediction, decode_ms = predict(image, prompt, step.multimask, output.every)
            timings.decode_ms += decode_ms
        if wanted():
            result, timings.mask_ms = render(image, prompt, prediction, output)
            response.results.append(result)
            response.image.CopyFrom(self.describe(image))
        return prediction

    def _prompt(self, step: Step, image: Image) -> Prompt:
        return step.prompt(image.header, image.predictor.config.mask_size, self._segmenter.limits)

    def _keep(self, step: Step, prediction: Prediction) -> None:
        self._counters.decodes += 1
        self._objects.keep(step, prediction)


def _tell(changed: Object, object_id: str, response: pb.ObjectResult) -> None:
    response.object_id = object_id
    response.prompt.CopyFrom(changed.step.shape)
    response.undo_steps = changed.step.depth
    response.redo_steps = len(changed.undone)
