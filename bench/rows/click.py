"""Row: a warm click over gRPC, from the prompt to the RLE in the client."""

import contextlib
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc, types_pb2
from maskwire_core.masks.rle import rle
from maskwire_decoder.predictor import Predictor
from maskwire_decoder.prompts.parsing import Prompt
from pycocotools import mask as coco

from bench.harness import Row
from bench.subject import CLICK, HEIGHT, THREADS, WIDTH, served, subject


def agree(ours: Any, other: Any) -> str:
    one, two = (coco.decode(counts) for counts in (ours, other))
    iou = np.count_nonzero(one & two) / np.count_nonzero(one | two)
    assert iou > 0.9999, iou
    return f"IoU {iou:.6f}"


@contextlib.contextmanager
def rows() -> Iterator[Iterator[Row]]:
    one = subject()
    predictor = Predictor(one.bundle, THREADS)
    image = predictor.prepare(one.tensors)
    point = types_pb2.Point(x_px=CLICK[0], y_px=CLICK[1])
    request = pb.SegmentRequest(image_id="photo", prompts=[types_pb2.Prompt(points=[point])])
    with served() as (address, _), grpc.insecure_channel(address) as channel:
        stub = decoder_pb2_grpc.DecoderServiceStub(channel)

        def click() -> Any:
            answer = stub.Segment(request).results[0].masks[0].rle
            return {"size": list(answer.size), "counts": answer.counts}

        def sam2() -> Any:
            masks, scores, _ = one.reference.predictor.predict(np.array([CLICK]), np.array([1]))
            return coco.encode(np.asfortranarray(masks[scores.argmax()].astype(np.uint8)))

        def in_process() -> Any:
            prompt = Prompt("", np.array([CLICK], np.float32), np.array([1]), None, None)
            return rle(predictor.predict(image, prompt, WIDTH, HEIGHT, every=False).logits[0], WIDTH, HEIGHT)

        name = "warm click over gRPC, prompt to RLE"
        yield iter(
            [
                Row(name, "SAM2ImagePredictor.predict and pycocotools in process", 0.3, click, sam2, agree, 25),
                Row(name, "the same decode and RLE in process", 1.15, click, in_process, agree, 60),
            ]
        )
