"""An encoder's self-test: whether its models still give what they gave at first."""

import numpy as np
from maskwire_core.models.registry import ModelError

from maskwire_encoder.backends.device import Tensors
from maskwire_encoder.backends.model import Model
from maskwire_encoder.pipeline import Pipeline

_TOLERANCE = 0.02  # largest deviation, relative to a tensor's largest value


class SelfTest:
    """Encodes a synthetic picture with each model of a pipeline.

    Args:
        pipeline: Has the models and their threads.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._expected: dict[Model, Tensors] = {}
        self._done = -1

    async def run(self) -> None:
        """Encodes the picture with each model and compares the result with the first one.

        It does nothing if images were encoded since the last self-test.

        Raises:
            Unavailable: The device is lost.
            ModelError: The first time: the model cannot encode, or what it gives is NaN or infinite.
            RuntimeError: The model does not give what it gave before.
        """
        before, self._done = self._done, self._pipeline.model.tally.done
        if self._done != before >= 0:
            return
        for model in self._pipeline.models:
            if model not in self._expected:
                self._expected[model] = await self._first(model)
                continue
            outcome = await self._encode_noise(model)
            for name, expected in self._expected[model].items():
                # Other batches sum in another order.
                if not np.allclose(outcome[name], expected, atol=_TOLERANCE * float(np.abs(expected).max())):
                    raise RuntimeError(f"{model.source.name} gives another {name} for the same picture than before")

    async def _encode_noise(self, model: Model) -> Tensors:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        (outcome,) = await self._pipeline.encode_batch(model, [model.prepare(noise)])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _first(self, model: Model) -> Tensors:
        """Encodes a model's first picture, and checks what it gives."""
        try:
            outcome = await self._encode_noise(model)
            await self._pipeline.verify(model, outcome)
        except (RuntimeError, ValueError) as error:  # sizes that no constructor has checked
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"{model.source.name} cannot encode a picture: {first}; the sizes in {model.source.config} do not go "
                "together"
            ) from error
        return outcome
