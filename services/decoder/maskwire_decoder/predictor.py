"""One model's mask decoder in ONNX Runtime on a CPU."""

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from maskwire_core.errors import CorruptValue
from maskwire_core.models.decoder_bundle import MOST_FOLDED, DecoderBundle
from maskwire_core.models.onnx_sessions import OnnxSessions
from numpy.typing import NDArray

from maskwire_decoder.prompts.encoding import EncodedPrompt, Prediction
from maskwire_decoder.prompts.parsing import Prompt

Prepared = Mapping[str, NDArray[Any]]
"""What every prompt on an image needs, by the names of the graphs' inputs."""
_IMAGE_GRAPHS = {"float32": "image_fp32", "float16": "image_fp16", "int16": "image_klt"}
_ALWAYS = ("tokens", "fine_1", "fine_0")
_IMAGE_INPUTS = {"click": (*_ALWAYS, "keys", "values", "queries"), "refine": _ALWAYS, "plain": _ALWAYS}


class Predictor:
    """Answers prompts as `SAM2ImagePredictor.predict` does, with as few multiplications as it takes.

    It may be called from several threads, each of which decodes one prompt at a time.

    Args:
        bundle: The exported decoder.
        threads: CPU threads of a decode while no other is running; while others run, each decode has one thread.

    Raises:
        CorruptValue: A graph would read files; see `check_graph`.

    Attributes:
        config: The model's configuration.
    """

    def __init__(self, bundle: DecoderBundle, threads: int) -> None:
        self.config = bundle.config
        self._threads = threads
        self._sessions = OnnxSessions(bundle.graphs, bundle.weights)
        self._lock, self._running = threading.Lock(), 0
        self._sessions.open("click", threads)

    def prepare(self, tensors: Mapping[str, NDArray[Any]]) -> Prepared:
        """Computes what every prompt on an image needs.

        Args:
            tensors: A stored embedding: fp16 or fp32 in its layout, or int16 planes if it is stored as klt.

        Raises:
            CorruptValue: The embedding is stored as klt, but the bundle has no transform.
        """
        (graph,) = {_IMAGE_GRAPHS[str(tensor.dtype)] for tensor in tensors.values()}
        if graph not in self._sessions:
            raise CorruptValue(f"the exported decoder of {self.config.model!r} cannot read embeddings stored as klt")
        session = self._sessions.open(graph, self._threads)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(tensors)), strict=True))

    def predict(self, image: Prepared, prompt: Prompt, width: int, height: int, *, every: bool = True) -> Prediction:
        """Decodes one prompt on an image from `prepare`; `EncodedPrompt.of` describes the other arguments.

        Raises:
            Internal: MODEL_OUTPUT_NOT_FINITE.
        """
        encoded = EncodedPrompt.of(self.config, prompt, width, height, every)
        with self._lock:
            self._running += 1
            # Concurrent decodes use the cores better with a thread each.
            threads = self._threads if self._running == 1 else 1
        try:
            return self._run_graphs(image, encoded, threads).checked(self.config.model)
        finally:
            with self._lock:
                self._running -= 1

    def _run_graphs(self, image: Prepared, encoded: EncodedPrompt, threads: int) -> Prediction:
        if len(encoded.labels) > MOST_FOLDED:
            graph = "plain"
        elif encoded.mask is not None:
            graph = "refine"
        else:
            graph = "click"
        inputs = {name: image[name] for name in _IMAGE_INPUTS[graph]}
        inputs |= {"points": encoded.points, "labels": encoded.labels, "masks": np.array(encoded.wanted)}
        if encoded.mask is not None:
            prompted = {"tokens": image["tokens"], "mask": encoded.mask[None]}
            inputs["tokens"] = self._sessions.open("mask", threads).run(None, prompted)[0]
        logits, iou, score = self._sessions.open(graph, threads).run(["logits", "iou", "object_score"], inputs)
        return encoded.select(logits, iou, score[0])
