"""One model's mask decoder in ONNX Runtime, prompts of all callers batched: for a GPU."""

import threading
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from maskwire_core.models.decoder_bundle import DecoderBundle
from numpy.typing import NDArray
from onnxruntime import InferenceSession, OrtValue, SessionOptions

from maskwire_decoder.predictor import Prepared, image_graph
from maskwire_decoder.prompts.encoding import Prediction, Question
from maskwire_decoder.prompts.parsing import Prompt
from maskwire_decoder.together import Together

_ON_IMAGE = ("tokens", "fine_1", "fine_0")

_Asked = tuple[Prepared, Question]


class BatchedPredictor:
    """A `Predictor` that decodes prompts on one image at once, as many as come while others are decoded.

    Images stay in the device's memory.

    Args:
        bundle: The exported decoder.
        device: "cuda", "cuda:N" or "cpu"; one that `is_available` says is there.
        most: Prompts of a batch.
    """

    def __init__(self, bundle: DecoderBundle, device: str, most: int) -> None:
        self.config = bundle.config
        self._bundle = bundle
        self._device, _, number = device.partition(":")
        self._number = int(number or 0)
        self._sessions: dict[str, InferenceSession] = {}
        self._opening = threading.Lock()
        self._together: Together[_Asked, Prediction] = Together(self._decode, most)
        self._session("several")

    def prepare(self, tensors: Mapping[str, NDArray[Any]]) -> Prepared:
        return self._run(image_graph(tensors), tensors, _ON_IMAGE, stay=True)

    def predict(
        self, image: Prepared, prompt: Prompt, width: int, height: int, *, multimask: bool = True, every: bool = True
    ) -> Prediction:
        question = Question.of(self.config, prompt, width, height, multimask, every)
        # No padding of points: SAM 2's padding point has a say in the mask.
        kind = (id(image), len(question.labels), question.wanted, question.mask is None)
        return self._together.run(kind, (image, question)).checked(self.config.model)

    def _decode(self, kind: Hashable, asked: Sequence[_Asked]) -> list[Prediction]:
        image = asked[0][0]
        questions = [question for _, question in asked]
        inputs = {name: image[name] for name in _ON_IMAGE}
        prompt_masks = [question.mask for question in questions if question.mask is not None]
        if prompt_masks:
            prompted = {"tokens": image["tokens"], "mask": np.stack(prompt_masks)}
            inputs["tokens"] = self._run("mask", prompted, ["with_mask"], stay=True)["with_mask"]
        inputs["points"] = np.stack([question.points for question in questions])
        inputs["labels"] = np.stack([question.labels for question in questions])
        inputs["masks"] = np.array(questions[0].wanted)
        given = self._run("several", inputs, ("logits", "iou", "object_score"), stay=False)
        logits, iou, score = (value.numpy() for value in given.values())
        scores = np.broadcast_to(score, len(questions))
        return [
            question.answer(*of_question) for question, *of_question in zip(questions, logits, iou, scores, strict=True)
        ]

    def _run(self, graph: str, inputs: Mapping[str, Any], outputs: Sequence[str], stay: bool) -> dict[str, OrtValue]:
        """Runs a graph on arrays and values on the device; the outputs stay there or come back."""
        session = self._session(graph)
        binding = session.io_binding()
        for name, value in inputs.items():
            if isinstance(value, OrtValue):
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
        for name in outputs:
            if stay:
                binding.bind_output(name, self._device, self._number)
            else:
                binding.bind_output(name)
        session.run_with_iobinding(binding)
        return dict(zip(outputs, binding.get_outputs(), strict=True))

    def _session(self, graph: str) -> InferenceSession:
        with self._opening:
            if graph not in self._sessions:
                self._sessions[graph] = self._open(graph)
            return self._sessions[graph]

    def _open(self, graph: str) -> InferenceSession:
        wanted = self._bundle.graphs[graph]
        options = SessionOptions()
        values = [OrtValue.ortvalue_from_numpy(self._bundle.weights[name]) for name in wanted.weights]
        options.add_external_initializers(list(wanted.weights), values)
        providers: list[Any] = ["CPUExecutionProvider"]
        if self._device == "cuda":
            # TF32 keeps ten bits of a product's factors: logits would be off by hundredths.
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": self._number, "use_tf32": 0}))
        session = InferenceSession(wanted.model, options, providers=providers)
        if self._device == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
            raise RuntimeError(f"ONNX Runtime cannot use {self._device}:{self._number}; its log tells why")
        return session


def is_available(device: str) -> bool:
    """Whether the installed ONNX Runtime is built for a device."""
    return not device.startswith("cuda") or "CUDAExecutionProvider" in onnxruntime.get_available_providers()
