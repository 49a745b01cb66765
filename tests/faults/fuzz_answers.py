"""Gives damaged answers to what a client reads them with: masks in every form, found masks, tracked frames, images and
errors. A decoder that writes to the wrong place must cost the client no more than an error."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import numpy as np
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status
from maskwire.automatic_masks import MaskCollector
from maskwire.embedded_image import EmbeddedImage
from maskwire.errors import MaskwireError, from_status, make_status
from maskwire.mask import Mask
from maskwire.output_options import Format
from maskwire.regions import box_of
from maskwire.results import Result
from maskwire.tracked_frame import TrackedFrame
from maskwire.v1 import decoder_pb2, encoder_pb2, tracker_pb2, types_pb2
from maskwire_core.masks.answer_room import AnswerRoom
from maskwire_core.masks.forms import mask_in_forms
from pycocotools import mask as coco

from .fuzz_messages import Outcome
from .mutations import damage_field, mutated, random_message

_WIDTH_PX, _HEIGHT_PX = 53, 37
_FORMS: tuple[Format, ...] = get_args(Format)


class Answer(NamedTuple):
    """An answer of a server."""

    real: Message
    read: Callable[[Any], None]  # reads everything that it says, as a client does


def answers(pick: random.Random) -> list[Answer]:
    """Returns an answer of each kind, as a server sends it."""
    sent = _mask(pick)
    place = types_pb2.Box(x_min_px=0, y_min_px=0, x_max_px=_WIDTH_PX, y_max_px=_HEIGHT_PX)
    image = decoder_pb2.SegmentedImage(image_id="fuzz", width_px=_WIDTH_PX, height_px=_HEIGHT_PX, region=place)
    info = types_pb2.ImageInfo(image_id="fuzz", width_px=_WIDTH_PX, height_px=_HEIGHT_PX, region=place)
    info.expires_at.FromSeconds(2_000_000_000)
    found = [decoder_pb2.GeneratedMask(number=number, rle=sent.rle, box=place, crop_box=place) for number in range(2)]
    objects = [tracker_pb2.TrackedObject(object_id="cup", mask=types_pb2.Mask(rle=sent.rle), object_score=1)]
    return [
        Answer(
            decoder_pb2.SegmentResponse(image=image, results=[types_pb2.PromptResult(masks=[sent, sent])]),
            _read_results,
        ),
        Answer(
            decoder_pb2.GenerateMasksResponse(image=image, found=found, dropped=[0], kept=[1], is_last=True),
            _read_found,
        ),
        Answer(tracker_pb2.FrameMasks(frame=3, objects=objects), _read_frame),
        Answer(encoder_pb2.EncodeImageResponse(image=info), _read_image),
        Answer(make_status(3, "wrong", "BAD_POINT", "prompts[0]", 1.5), _read_error),
    ]


def read_damaged(pick: random.Random, real: list[Answer]) -> Outcome:
    """Damages one of the answers, and reads it."""
    message, read = pick.choice(real)
    damaged = type(message)()
    damaged.CopyFrom(message)
    way = pick.random()
    if way < 0.2:
        random_message(pick, damaged)
    elif way < 0.8:
        for _ in range(pick.choice((1, 1, 1, 2, 4))):
            damage_field(pick, damaged)
    else:
        try:
            damaged = type(message).FromString(mutated(pick, message.SerializeToString()))
        except DecodeError:
            return "no message"  # to gRPC an INTERNAL error, to the client's caller a MaskwireError
    try:
        read(damaged)
    except MaskwireError as error:
        if error.reason != "BAD_ANSWER":
            raise
        return error.reason
    return "answer"


def _mask(pick: random.Random) -> types_pb2.Mask:
    """Returns a mask in every form: boxes, so that it has holes and pixels of their own."""
    values = np.random.default_rng(pick.getrandbits(32))
    small = values.random((_HEIGHT_PX // 4 + 1, _WIDTH_PX // 4 + 1)) < 0.4
    inside = np.kron(small, np.ones((4, 4), bool))[:_HEIGHT_PX, :_WIDTH_PX]
    runs = coco.encode(np.asfortranarray(inside.view(np.uint8)))
    forms = [types_pb2.MaskFormat.Value(f"MASK_FORMAT_{form.upper()}") for form in _FORMS]
    mask = mask_in_forms(runs, forms, _WIDTH_PX, _HEIGHT_PX, AnswerRoom())
    logits = values.standard_normal((16, 16)).astype("<f2")
    mask.logits.CopyFrom(
        types_pb2.Logits(height=16, width=16, data_type=types_pb2.DATA_TYPE_FP16, data=logits.tobytes())
    )
    return mask


def _read_results(response: decoder_pb2.SegmentResponse) -> None:
    for each in response.results:
        result = Result(
            each,
            response=response,
            prompt=types_pb2.Prompt(),
            forms=_FORMS,
            cached=True,
            source=None,
            fetch=None,
            known_size=(_WIDTH_PX, _HEIGHT_PX),
        )
        shape = result.height, result.width
        for mask, sent in zip(result.candidates, each.masks, strict=True):
            assert mask.logits.ndim == 2
            mask.polygons()
            for form in ("rle", "png", "packed_bits"):
                assert Mask(sent, shape, (form,), None).array.shape == shape
            assert box_of(sent.rle) == mask.box


def _read_found(response: decoder_pb2.GenerateMasksResponse) -> None:
    update = MaskCollector((_WIDTH_PX, _HEIGHT_PX)).add(response)
    for mask in (*update.masks, *update.new):
        assert list(mask.array.shape) == mask.rle["size"]
        assert len(mask.box) == 4
        repr(mask)


def _read_frame(message: tracker_pb2.FrameMasks) -> None:
    frame = TrackedFrame(message, (_WIDTH_PX, _HEIGHT_PX), None)
    assert all(mask.array.shape == (_HEIGHT_PX, _WIDTH_PX) for mask in frame.masks.values())
    repr(frame)


def _read_image(response: encoder_pb2.EncodeImageResponse) -> None:
    EmbeddedImage.from_messages(response.image, response.cached, response.timings)


def _read_error(status: Status) -> None:
    str(from_status(status))
