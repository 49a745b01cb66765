"""Masks in all their forms, against torch and against each other."""

import io

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskwire.mask import Mask
from maskwire.v1 import types_pb2 as pb
from maskwire_core.masks.geometry import ImageSize
from maskwire_decoder.masks.rendering import render
from maskwire_decoder.predictor import Prediction
from maskwire_decoder.prompts.parsing import Prompt, parse_output
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from testing.contours import filled
from testing.reference.predictor import SAM2Transforms

PROMPT = Prompt("p", np.zeros((0, 2), np.float32), np.zeros(0, np.int64), None, None)
ALL_FORMS = ("rle", "png", "polygons", "packed_bits", "logits")


def logits_of(seed: int, side: int, roughness: int) -> NDArray[np.float32]:
    """Smooth random logits, rough at the scale of `roughness` cells; some of them all positive or all negative."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((roughness, roughness)).astype(np.float32) + random.choice([-9, 0, 0, 0, 9])
    return np.asarray(cv2.resize(noise * 8, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)


@given(
    st.integers(0, 2**32), st.sampled_from([32, 128, 256]), st.integers(2, 20), st.integers(1, 300), st.integers(1, 300)
)
@settings(max_examples=150, deadline=None)
def test_all_forms_are_the_same_mask(seed: int, side: int, roughness: int, width: int, height: int) -> None:
    logits = logits_of(seed, side, roughness)
    full = torch.nn.functional.interpolate(torch.from_numpy(logits)[None, None], (height, width), mode="bilinear")
    mask = full[0, 0].numpy() > 0

    formats = [
        pb.MASK_FORMAT_RLE,
        pb.MASK_FORMAT_PNG,
        pb.MASK_FORMAT_POLYGONS,
        pb.MASK_FORMAT_PACKED_BITS,
        pb.MASK_FORMAT_LOGITS,
    ]
    output = parse_output(pb.OutputOptions(formats=formats, logits_type=pb.DATA_TYPE_FP32))
    prediction = Prediction(logits[None], np.array([0.9], np.float32), 3.0)
    result = render(PROMPT, prediction, output, ImageSize(width, height))
    (message,) = result.masks
    read = Mask(message, (height, width), ALL_FORMS, None)
    np.testing.assert_array_equal(read.array, mask)
    np.testing.assert_array_equal(coco.decode(read.rle | {"counts": read.rle["counts"].encode()}), mask)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(message.png))) == 255, mask)
    np.testing.assert_array_equal(Mask(message, (height, width), ["packed_bits"], None).array, mask)
    np.testing.assert_array_equal(Mask(message, (height, width), ["png"], None).array, mask)
    np.testing.assert_array_equal(filled(read.contours, height, width), mask)
    np.testing.assert_array_equal(read.logits, logits.clip(-32, 32))


def components(masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """sam2's get_connected_components, a CUDA kernel, by flood fill: labels and areas of 8-connected components."""
    labels, areas = torch.zeros_like(masks, dtype=torch.int32), torch.zeros_like(masks, dtype=torch.int32)
    for index, mask in enumerate(masks[:, 0]):
        for start in mask.nonzero().tolist():
            if labels[index, 0, start[0], start[1]]:
                continue
            found, todo = [], [tuple(start)]
            labels[index, 0, start[0], start[1]] = 1
            while todo:
                row, column = todo.pop()
                found.append((row, column))
                for r in range(max(row - 1, 0), min(row + 2, mask.shape[0])):
                    for c in range(max(column - 1, 0), min(column + 2, mask.shape[1])):
                        if mask[r, c] and not labels[index, 0, r, c]:
                            labels[index, 0, r, c] = 1
                            todo.append((r, c))
            for row, column in found:
                areas[index, 0, row, column] = len(found)
    return labels, areas


@given(st.integers(0, 2**32), st.sampled_from([0.0, -1.5, 2.0]), st.integers(0, 20), st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_threshold_holes_and_sprinkles_equal_sam2(seed: int, threshold: float, holes: int, sprinkles: int) -> None:
    logits = logits_of(seed, 24, 16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sam2.utils.misc.get_connected_components", components)
        transforms = SAM2Transforms(64, threshold, max_hole_area=holes, max_sprinkle_area=sprinkles)
        full = transforms.postprocess_masks(torch.from_numpy(logits)[None, None], (50, 70))[0, 0].numpy()
    options = pb.OutputOptions(mask_threshold=threshold, max_hole_area=holes, max_sprinkle_area=sprinkles)
    prediction = Prediction(logits[None], np.ones(1, np.float32), 1.0)
    result = render(PROMPT, prediction, parse_output(options), ImageSize(70, 50))
    mask = Mask(result.masks[0], (50, 70), ["rle"], None).array
    assert not ((mask != (full > threshold)) & (np.abs(full - threshold) > 1e-3)).any()
