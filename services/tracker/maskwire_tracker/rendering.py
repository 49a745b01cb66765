"""Renders the masks of a frame in the forms that callers ask for."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from maskwire.v1 import types_pb2 as pb
from maskwire_core.masks.answer_room import AnswerRoom
from maskwire_core.masks.forms import mask_in_forms
from maskwire_core.masks.rle import rle
from pycocotools import mask as coco

from maskwire_tracker.masks import at_video_size
from maskwire_tracker.messages import Formats
from maskwire_tracker.remembered import Floats


def render(
    logits: Mapping[str, Floats], width: int, height: int, apart: bool, formats: Formats, room: AnswerRoom
) -> dict[str, pb.Mask]:
    """Makes the masks of objects on a frame.

    Args:
        logits: Low-resolution masks by object.
        width: Width of the frame in pixels.
        height: Height of the frame in pixels.
        apart: Whether a pixel belongs to one object only; see `at_video_size`.
        formats: Forms of the masks.
        room: What is left of the answer.

    Raises:
        ResourceExhausted: ANSWER_TOO_LARGE.
    """
    runs: dict[str, Any]
    if apart and len(logits) > 1:
        large = at_video_size(logits, width, height, apart)
        runs = {name: coco.encode(np.asfortranarray(each > 0).view(np.uint8)) for name, each in large.items()}
    else:
        runs = {name: rle(each, width, height) for name, each in logits.items()}
    return {name: mask_in_forms(each, formats, width, height, room) for name, each in runs.items()}
