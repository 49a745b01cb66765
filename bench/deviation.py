"""Measures how far the masks from an encoder's batches are from sam2's own."""

import os
from typing import Any

import numpy as np
import torch
from maskwire_decoder.predictor import Predictor
from maskwire_decoder.prompts.encoding import Prediction
from maskwire_decoder.prompts.parsing import Prompt
from maskwire_encoder.backends.model import Model
from maskwire_encoder.checkpoints import loading
from PIL import Image
from torch.nn import functional as F

from testing.reference.predictor import Answer, Reference, random_prompt

KINDS = ("single", "several")


class Deviation:
    """sam2's masks in fp32 on the CPU for images of different shapes, computed once and compared with any batch size.

    Args:
        model: The model to measure.
        photograph: The image whose parts are encoded.
        prompts: Number of prompts of each kind for each image: single clicks, and several points, boxes or both.
    """

    def __init__(self, model: Model, photograph: Image.Image, prompts: int) -> None:
        sam = loading.build(model.source).model
        random = np.random.default_rng(11)
        self._model = model
        self._predictor = Predictor(model.decoder, threads=os.cpu_count() or 1)
        self._images = [
            np.array(photograph.resize(size, box=box))
            for size, box in (((600, 400), (0, 0, 600, 400)), ((300, 500), (150, 50, 390, 400)), ((1100, 500), None))
        ]
        self._asked: list[list[tuple[str, dict[str, Any], Answer]]] = []
        for image in self._images:
            height, width = image.shape[:2]
            reference = Reference(sam, image)
            asked = []
            for kind in KINDS:
                for number in range(prompts):
                    prompt = random_prompt(random, ("points", "box", "both")[number % 3], width, height)
                    if kind == "single":
                        spot = random.uniform((0, 0), (width, height)).astype(np.float32)
                        prompt = {"points": [spot.tolist()], "labels": [1]}
                    asked.append((kind, prompt, reference.predict(prompt, multimask=True)))
            self._asked.append(asked)

    def of_batch(self, size: int) -> dict[str, dict[str, float]]:
        """Encodes a batch. Returns the mean IoU of full-size masks and the largest difference of a logit by kind."""
        order = [(size + index) % len(self._images) for index in range(size)]
        batch = self._model.encode([self._model.prepare(self._images[index]) for index in order])
        found: dict[str, tuple[list[float], list[float]]] = {kind: ([], []) for kind in KINDS}
        for place in {0, size // 2, size - 1}:  # the first, the middle and the last of a batch
            image = self._predictor.prepare(batch[place])
            height, width = self._images[order[place]].shape[:2]
            for kind, prompt, answer in self._asked[order[place]]:
                ours = self._predictor.predict(image, as_prompt(prompt), width, height)
                ious, logits = found[kind]
                ious.append(iou(ours, answer, width, height))
                logits.append(float(np.abs(ours.logits.clip(-32, 32) - answer.logits).max()))
        return {kind: {"iou": float(np.mean(ious)), "logit": max(logits)} for kind, (ious, logits) in found.items()}


def as_prompt(prompt: dict[str, Any]) -> Prompt:
    """Converts a prompt from the form that `testing.reference.predictor.Reference` takes."""
    return Prompt(
        prompt_id="",
        points=np.array(prompt.get("points", []), np.float32).reshape(-1, 2),
        labels=np.array(prompt.get("labels", []), np.int64),
        box=np.array(prompt["box"], np.float32) if "box" in prompt else None,
        mask=prompt.get("mask"),
    )


def iou(ours: Prediction, answer: Answer, width: int, height: int) -> float:
    """Returns the IoU of full-size masks, averaged over the candidates."""
    logits = torch.from_numpy(ours.logits)[None]
    masks = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)[0].numpy() > 0
    both = (masks & answer.masks).sum((1, 2))
    either = (masks | answer.masks).sum((1, 2))
    return float(np.where(either > 0, both / np.maximum(either, 1), 1).mean())
