"""Measures what each codec of the store costs masks, on photographs of one's own.

    python -m bench.codecs FOLDER [--models demo,sam2.1_hiera_tiny] [--iou 0.99] [--out bench/results/codecs.json]
    python docs/generate.py

The production path in one process: encoder, the stored form, and the exported decoder in ONNX Runtime. On each
photograph: clicks on a grid, boxes around what they answer, and from each click five corrections towards an ellipse in
such a box, each with the logits before it. Compared is the candidate that is best on the exact embedding, at full size.
A *flip* is a prompt of which another candidate scores best, or, asked for a single mask, another one is answered: its
mask may be as good, and is another. Published models get seeded random weights.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from maskwire_core.config import MIB, EncoderSettings
from maskwire_core.models.registry import DEMO, PUBLISHED
from maskwire_core.storage.codecs import CODECS
from maskwire_core.storage.embedding import Header, pack, unpack
from maskwire_decoder.predictor import Predictor, Prepared
from maskwire_decoder.prompts.encoding import Prediction
from maskwire_decoder.prompts.parsing import Prompt
from maskwire_encoder.backends.model import Model
from maskwire_encoder.checkpoints import loading
from maskwire_encoder.image_input.reading import read_image
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from bench.deviation import as_prompt
from bench.harness import machine
from testing.paths import ROOT
from testing.reference.predictor import build_random

GRID = 4
CORRECTIONS = 5
KINDS = ("click", "box", "corrections")
EXACT = "fp32"

Mask = NDArray[np.bool_]


@dataclass
class Figures:
    """What was measured of a codec."""

    ious: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    flips: int = 0
    asked: int = 0  # prompts of which it was looked whether they flip
    nbytes: list[int] = field(default_factory=list)
    encode_ms: list[float] = field(default_factory=list)
    decode_ms: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """As it is written to a file."""
        return {
            "mib": statistics.mean(self.nbytes) / MIB,
            "encode_ms": statistics.median(self.encode_ms),
            "decode_ms": statistics.median(self.decode_ms),
            "flips": self.flips / self.asked if self.asked else 0,
            "prompts": self.asked,
            **{kind: {"mean": float(np.mean(each)), "least": min(each)} for kind, each in self.ious.items() if each},
        }


class Photograph:
    """A photograph's embedding in every codec, and answers on it.

    Args:
        model: Encodes it.
        predictor: The model's exported decoder.
        path: Its file.
        figures: By codec; gets sizes and times.
    """

    def __init__(self, model: Model, predictor: Predictor, path: Path, figures: Mapping[str, Figures]) -> None:
        rgb = read_image(path.read_bytes(), 10**9).pixels
        self.height, self.width = rgb.shape[:2]
        self._predictor = predictor
        self._embeddings: dict[str, Prepared] = {}
        (tensors,) = model.encode(model.prepare(rgb)[None])
        for codec, measured in figures.items():
            header = Header("n", "k", model.source.name, "f", "d", self.height, self.width, codec, time.time())
            started = time.perf_counter()
            value = pack(header, model.to_store(tensors, codec))
            packed = time.perf_counter()
            self._embeddings[codec] = predictor.prepare(unpack(value).tensors)
            measured.encode_ms.append((packed - started) * 1e3)
            measured.decode_ms.append((time.perf_counter() - packed) * 1e3)
            measured.nbytes.append(len(value))

    def ask(self, codec: str, prompt: Prompt) -> Prediction:
        """Answers a prompt from the embedding as a codec stores it."""
        return self._predictor.predict(self._embeddings[codec], prompt, self.width, self.height)

    def mask(self, logits: NDArray[np.float32]) -> Mask:
        """A mask at full size."""
        mask: Mask = cv2.resize(logits, (self.width, self.height)) > 0
        return mask


def measure(model: Model, predictor: Predictor, path: Path, figures: Mapping[str, Figures]) -> None:
    """Measures all codecs on one photograph; the figures are added to `figures`."""
    photograph = Photograph(model, predictor, path, figures)
    for place in np.ndindex(GRID, GRID):
        x, y = (np.array(place) + 0.5) * (photograph.width, photograph.height) / GRID
        click = as_prompt({"points": [(x, y)], "labels": [1]})
        mask = _compare("click", photograph, click, figures)
        left, top, wide, high = cv2.boundingRect(mask.astype(np.uint8))
        if wide and high:
            _compare("box", photograph, as_prompt({"box": (left, top, left + wide, top + high)}), figures)
            ellipse = np.zeros(mask.shape, np.uint8)
            cv2.ellipse(ellipse, ((left + wide / 2, top + high / 2), (wide, high), 0), 1, -1)
            _correct(photograph, click, ellipse.astype(bool), figures)


def _compare(kind: str, photograph: Photograph, prompt: Prompt, figures: Mapping[str, Figures]) -> Mask:
    """Compares the best candidate and looks for flips. Returns the exact mask."""
    exact = photograph.ask(EXACT, prompt)
    best = int(exact.iou.argmax())
    expected = photograph.mask(exact.logits[best])
    single = replace(prompt, multimask=False)
    chosen = photograph.mask(photograph.ask(EXACT, single).logits[0])
    for codec, measured in figures.items():
        answer = photograph.ask(codec, prompt)
        measured.ious[kind].append(_iou(photograph.mask(answer.logits[best]), expected))
        again = photograph.mask(photograph.ask(codec, single).logits[0])
        measured.flips += int(answer.iou.argmax()) != best or _iou(again, chosen) < 0.8
        measured.asked += 1
    return expected


def _correct(photograph: Photograph, click: Prompt, target: Mask, figures: Mapping[str, Figures]) -> None:
    """Compares what corrections lead to. The clicks are those that the exact mask calls for; each codec goes on from
    its own logits."""
    best = int(photograph.ask(EXACT, click).iou.argmax())
    logits = {codec: photograph.ask(codec, click).logits[best] for codec in figures}
    points, labels = click.points, click.labels
    for _ in range(CORRECTIONS):
        wrong = photograph.mask(logits[EXACT]) != target
        depths = cv2.distanceTransform(np.pad(wrong, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
        row, column = np.unravel_index(depths.argmax(), depths.shape)
        points = np.concatenate([points, [[column + 0.5, row + 0.5]]]).astype(np.float32)
        labels = np.append(labels, int(target[row, column]))
        for codec, before in logits.items():
            prompt = replace(click, points=points, labels=labels, mask=before, multimask=False)
            logits[codec] = photograph.ask(codec, prompt).logits[0]
    expected = photograph.mask(logits[EXACT])
    for codec, measured in figures.items():
        measured.ious["corrections"].append(_iou(photograph.mask(logits[codec]), expected))


def _iou(one: Mask, other: Mask) -> float:
    either = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / either if either else 1.0


def measure_model(name: str, paths: list[Path], iou: float, console: Console) -> dict[str, Any]:
    """Measures all codecs of a model. Returns the summaries by codec, and the model's size and notes."""
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {}
        if name != DEMO:
            checkpoint = Path(folder) / f"{name}.pt"
            torch.save({"model": build_random(PUBLISHED[name].config, seed=5).state_dict()}, checkpoint)
            options = {"model": [name], "checkpoint": checkpoint}
        settings = EncoderSettings(device="cpu", backend="torch", store_codec="klt", store_iou=iou, **options)
        (source,) = loading.find(settings)
        with console.status(f"{name}: fitting klt"):
            model = Model(source, settings)
    codecs = [EXACT, *(codec for codec in CODECS if codec != EXACT)]
    if model.transform is None:
        codecs.remove("klt")
    figures = {codec: Figures() for codec in codecs}
    predictor = Predictor(model.decoder, threads=os.cpu_count() or 1)
    for path in track(paths, name, console=console):
        measure(model, predictor, path, figures)
    return {
        "image_size_px": model.image_size,
        "klt_iou": model.transform.iou if model.transform is not None else None,
        "codecs": {codec: each.summary() for codec, each in figures.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of photographs (.jpg), others than klt is fitted to")
    parser.add_argument("--models", default=DEMO, help="names, separated by commas")
    parser.add_argument("--iou", type=float, default=0.99, help="what is asked of klt, --store-iou")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "codecs.json")
    arguments = parser.parse_args()
    paths = sorted(arguments.folder.glob("*.jpg"))
    if not paths:
        parser.error(f"{arguments.folder} has no .jpg")
    console = Console(stderr=True)
    models = {name: measure_model(name, paths, arguments.iou, console) for name in arguments.models.split(",")}
    about = {"photographs": len(paths), "asked_iou": arguments.iou, **machine()}
    arguments.out.write_text(json.dumps({**about, "models": models}, indent=1) + "\n")


if __name__ == "__main__":
    main()
