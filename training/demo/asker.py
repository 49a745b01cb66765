"""Asks a model for masks as an annotator would, by sam2's own forward pass in fp32."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from maskwire_encoder.checkpoints import loading
from maskwire_encoder.image_input.preprocessing import preprocess
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from training.demo.clicks import Mask, centre, correction
from training.demo.decoder import CORNER_1, CORNER_2, FOREGROUND, PAD
from training.demo.network import source

Pixels = list[tuple[int, int]]


@dataclass(frozen=True)
class Answer:
    """Candidates: masks CxHxW, predicted IoU C, low-resolution logits Cx(S/4)x(S/4)."""

    masks: Mask
    scores: NDArray[np.float32]
    logits: NDArray[np.float32]

    @property
    def best(self) -> int:
        return int(self.scores.argmax())


class Asker:
    """One model; one picture at a time."""

    def __init__(self, weights: Path | None = None) -> None:
        self._sam = loading.build(source(weights)).model

    @torch.inference_mode()
    def look(self, rgb: NDArray[np.uint8]) -> None:
        """Encodes a picture (HxWx3); what is asked next is about it."""
        self._shape = rgb.shape[:2]
        high_0, high_1, embed = self._sam.forward_image(
            preprocess(torch.from_numpy(np.ascontiguousarray(rgb))[None], self._sam.image_size)
        )["backbone_fpn"]
        self._embed, self._high = embed + self._sam.no_mem_embed.reshape(1, -1, 1, 1), [high_0, high_1]

    def click(self, points: Pixels, labels: list[int], logits: NDArray[np.float32] | None = None) -> Answer:
        """Clicks: three candidates for a single one, one mask for several, refined from logits ((S/4)x(S/4))."""
        mask = None if logits is None else torch.from_numpy(logits)[None, None]
        return self._ask(points, labels, mask, multimask=len(points) == 1)

    def box(self, box: tuple[int, int, int, int]) -> Answer:
        return self._ask([box[:2], box[2:]], [CORNER_1, CORNER_2], None, multimask=False)

    def nothing(self) -> Answer:
        """The most prominent object, asked for by a padding point."""
        return self._ask([(0, 0)], [PAD], None, multimask=True)

    def corrected(self, target: Mask, clicks: int) -> list[Answer]:
        """A click on the centre of an object, then clicks on the centre of what is most wrong: each answer's best."""
        points, labels = [centre(target)], [FOREGROUND]
        answers = [self.click(points, labels)]
        for _ in range(clicks):
            last = answers[-1]
            point, label = correction(last.masks[last.best], target)
            points, labels = [*points, point], [*labels, label]
            answers.append(self.click(points, labels, last.logits[last.best]))
        return answers

    @torch.inference_mode()
    def _ask(self, points: Pixels, labels: list[int], mask: Tensor | None, multimask: bool) -> Answer:
        sam = self._sam
        scale = sam.image_size / torch.tensor(self._shape[::-1])
        coordinates = (torch.tensor(points) * scale)[None], torch.tensor([labels], dtype=torch.int32)
        sparse, dense = sam.sam_prompt_encoder(coordinates, None, mask)
        logits, scores, *_ = sam.sam_mask_decoder(
            image_embeddings=self._embed,
            image_pe=sam.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            repeat_image=False,
            high_res_features=self._high,
        )
        masks = F.interpolate(logits, self._shape, mode="bilinear", align_corners=False)[0] > 0
        return Answer(masks.numpy(), scores[0].numpy(), logits[0].clamp(-32, 32).numpy())


def bounds(mask: Mask) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 around a mask, the far sides exclusive."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def iou(mask: Mask, target: Mask) -> float:
    return int(np.count_nonzero(mask & target)) / max(1, int(np.count_nonzero(mask | target)))
