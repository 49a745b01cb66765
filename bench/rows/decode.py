"""Rows: the mask decoder alone."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
import torch
from maskwire_decoder.predictor import Predictor
from maskwire_decoder.prompts.parsing import Prompt
from torch import Tensor, nn

from bench.harness import Row
from bench.subject import CLICK, HEIGHT, THREADS, WIDTH, Subject, subject

PROMPTS = 8


class Stock(nn.Module):
    """sam2's prompt encoder and mask decoder, with three candidates."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.prompts, self.decoder = model.sam_prompt_encoder, model.sam_mask_decoder

    def forward(self, embed: Tensor, high_0: Tensor, high_1: Tensor, points: Tensor, labels: Tensor) -> Any:
        sparse, dense = self.prompts((points, labels), None, None)
        masks, iou, _, _ = self.decoder(
            image_embeddings=embed,
            image_pe=self.prompts.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=len(points) > 1,
            high_res_features=[high_0, high_1],
        )
        return masks, iou


def clicks(count: int) -> list[tuple[float, float]]:
    return [CLICK, *np.random.default_rng(0).uniform((0, 0), (WIDTH, HEIGHT), (count - 1, 2)).tolist()]


def tensors(one: Subject, count: int) -> tuple[Tensor, ...]:
    embed, (high_0, high_1) = one.features
    scaled = torch.tensor(clicks(count)) / torch.tensor([WIDTH, HEIGHT]) * 1024
    return embed, high_0, high_1, scaled[:, None].float(), torch.ones(count, 1, dtype=torch.int32)


def exported(stock: Stock, inputs: tuple[Tensor, ...]) -> onnxruntime.InferenceSession:
    """Exports a Stock to ONNX with torch's exporter, and opens it in ONNX Runtime."""
    file = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(stock, inputs, dynamo=True, verbose=False)
    assert program is not None
    program.save(file)  # type: ignore[arg-type]  # it writes to any file
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(file.getvalue(), options)


def agree(ours: Any, other: Any) -> str:
    difference = max(float(np.abs(one.logits - np.asarray(two)).max()) for one, two in zip(ours, other, strict=True))
    assert difference < 1e-3, difference
    return f"logits within {difference:.0e}"


@contextlib.contextmanager
def rows() -> Iterator[Iterator[Row]]:
    one = subject()
    stock = Stock(one.model).eval()
    predictor = Predictor(one.bundle, THREADS)
    image = predictor.prepare(one.tensors)
    click, many = tensors(one, 1), tensors(one, PROMPTS)
    prompts = [Prompt("", np.array([xy], np.float32), np.array([1]), None, None) for xy in clicks(PROMPTS)]
    session = exported(stock, click)
    names = [entry.name for entry in session.get_inputs()]
    threads = ThreadPoolExecutor(THREADS)

    def torch_stock(inputs: tuple[Tensor, ...]) -> list[Tensor]:
        with torch.inference_mode():
            return list(stock(*inputs)[0])

    def onnx_stock() -> list[Any]:
        return [session.run(None, dict(zip(names, (tensor.numpy() for tensor in click), strict=True)))[0][0]]

    def decode(count: int) -> list[Any]:
        return list(threads.map(lambda prompt: predictor.predict(image, prompt, WIDTH, HEIGHT), prompts[:count]))

    with threads:
        yield iter(
            [
                Row(
                    "decode one click, fp32",
                    "stock torch decoder",
                    0.28,
                    lambda: decode(1),
                    lambda: torch_stock(click),
                    agree,
                ),
                Row(
                    "decode one click, fp32",
                    "stock ONNX export in ONNX Runtime",
                    0.5,
                    lambda: decode(1),
                    onnx_stock,
                    agree,
                ),
                Row(
                    "8 prompts on one image",
                    "stock torch, one batch of 8",
                    0.18,
                    lambda: decode(PROMPTS),
                    lambda: torch_stock(many),
                    agree,
                    7,
                ),
            ]
        )
