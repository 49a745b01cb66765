"""Measures what storing embeddings as klt costs masks, on photographs of one's own.

    python -m bench.klt FOLDER [--model demo] [--checkpoint FILE] [--iou 0.99]

The production path in one process: encoder, the stored form, and the exported decoder in ONNX Runtime. On each
photograph, clicks on a grid and boxes around what they answer; of each prompt, the candidate that is best on the exact
embedding, at full size. A box is also asked for a single mask, as callers do: where that is another candidate than on
the exact embedding, its IoU is far below the others'.
"""

import argparse
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from maskwire_core.config import EncoderSettings
from maskwire_core.models.registry import DEMO
from maskwire_core.storage.embedding import Header, pack, unpack
from maskwire_decoder.predictor import Predictor
from maskwire_decoder.prompts.parsing import Prompt
from maskwire_encoder.backends.model import Model
from maskwire_encoder.checkpoints import loading
from maskwire_encoder.image_input.reading import read_image
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from bench.deviation import as_prompt

GRID = 4
KINDS = ("click", "box", "box, single mask")


def measure(model: Model, predictor: Predictor, path: Path) -> tuple[dict[str, list[float]], float]:
    """Measures one photograph. Returns the IoU of each prompt by kind, and the stored bytes relative to fp32's."""
    rgb = read_image(path.read_bytes(), 10**9).pixels
    height, width = rgb.shape[:2]
    (tensors,) = model.encode(model.prepare(rgb)[None])
    packed = {}
    for codec in ("fp32", "klt"):
        header = Header("n", "k", model.source.name, "f", "d", height, width, codec, time.time())
        packed[codec] = pack(header, model.to_store(tensors, codec))
    exact, stored = (predictor.prepare(unpack(value).tensors) for value in packed.values())

    def ask(embedding: Any, prompt: Prompt) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        answer = predictor.predict(embedding, prompt, width, height)
        return np.stack([cv2.resize(one, (width, height)) > 0 for one in answer.logits]), answer.iou

    ious: dict[str, list[float]] = {kind: [] for kind in KINDS}

    def compare(kind: str, prompt: Prompt) -> NDArray[np.bool_]:
        masks, scores = ask(exact, prompt)
        best = int(scores.argmax())
        expected, got = masks[best], ask(stored, prompt)[0][best]
        either = np.count_nonzero(expected | got)
        ious[kind].append(np.count_nonzero(expected & got) / either if either else 1.0)
        return expected

    for place in np.ndindex(GRID, GRID):
        x, y = (np.array(place) + 0.5) * (width, height) / GRID
        mask = compare("click", as_prompt({"points": [(x, y)], "labels": [1]}))
        left, top, wide, high = cv2.boundingRect(mask.astype(np.uint8))
        if wide and high:
            box = as_prompt({"box": (left, top, left + wide, top + high)})
            compare("box", box)
            compare("box, single mask", replace(box, multimask=False))
    return ious, len(packed["klt"]) / len(packed["fp32"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of photographs (.jpg)")
    parser.add_argument("--model", default=DEMO)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--iou", type=float, default=0.99, help="what is asked for, --store-iou")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    settings = EncoderSettings(
        model=[arguments.model],
        checkpoint=arguments.checkpoint,
        device="cpu",
        backend="torch",
        store_codec="klt",
        store_iou=arguments.iou,
    )
    (source,) = loading.find(settings)
    model = Model(source, settings)
    if model.transform is None:
        raise SystemExit(f"error: {arguments.model} is stored as fp16")
    predictor = Predictor(model.decoder, threads=os.cpu_count() or 1)
    console = Console(stderr=True)
    found: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    shares = []
    for path in track(sorted(arguments.folder.glob("*.jpg")), "photographs", console=console):
        ious, share = measure(model, predictor, path)
        shares.append(share)
        for kind, each in ious.items():
            found[kind].append(each)
    print(f"{len(shares)} photographs, {np.mean(shares):.4f} of the bytes of fp32")
    print("| prompt | prompts | mean IoU | median | least of a photograph |")
    print("|---|---|---|---|---|")
    for kind, photographs in found.items():
        every = np.concatenate(photographs)
        least = min(float(np.mean(each)) for each in photographs if each)
        print(f"| {kind} | {len(every)} | {every.mean():.4f} | {np.median(every):.4f} | {least:.4f} |")


if __name__ == "__main__":
    main()
