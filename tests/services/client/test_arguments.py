"""Nothing is swallowed: arguments that do not exist, values that mean nothing, and sam2's own names."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from maskwire import (
    AsyncClient,
    AsyncSession,
    Client,
    EmbeddedImage,
    ImageNotFound,
    InvalidRequest,
    Mask,
    Prompt,
    Result,
    Session,
    UnknownArgument,
)

from testing.paths import COFFEE
from testing.servers import Stack

POINT = {"points": [(260, 130)]}


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Client]:
    with stack.client() as made:
        yield made


@pytest.fixture(scope="module")
def image(client: Client) -> EmbeddedImage:
    return client.embed(COFFEE, image_id="arguments")


UNKNOWN: list[tuple[Callable[[Any], Any], str, str]] = [
    (lambda c: c.segment("x", pionts=[(1, 2)]), "pionts", "did you mean 'points'"),
    (lambda c: c.segment("x", boxes=[(1, 2, 3, 4)]), "boxes", "segment_objects"),
    (lambda c: c.segment("x", mask_treshold=5), "mask_treshold", "did you mean 'mask_threshold'"),
    (lambda c: c.segment_objects("x", [Prompt()], multimsk=True), "multimsk", "did you mean 'multimask'"),
    (lambda c: c.session("x", multimsk=True), "multimsk", "did you mean 'multimask'"),
    (lambda c: c.segment_many([], evry=True), "evry", "did you mean 'every'"),
    (lambda c: c.embed_many([], modl="x"), "modl", "did you mean 'model'"),
    (lambda c: c.generate_masks("x", points_per_sid=3), "points_per_sid", "did you mean 'points_per_side'"),
    (lambda c: c.everything("x", pred_iou_tresh=3), "pred_iou_tresh", "did you mean 'pred_iou_thresh'"),
    (lambda c: c.embed("x", imageid="y"), "imageid", "did you mean 'image_id'"),
    (lambda c: c.images(prefx="y"), "prefx", "did you mean 'prefix'"),
    (lambda c: c.delete("x", embeding=True), "embeding", "did you mean 'embedding'"),
    (lambda c: c.prefetch("x", modle=""), "modle", "did you mean 'model'"),
    (lambda c: type(c)(encodr="x"), "encodr", "did you mean 'encoder'"),
    (lambda c: Prompt(pionts=[(1, 2)]), "pionts", "did you mean 'points'"),  # type: ignore[call-arg]
]


@pytest.mark.parametrize(("call", "name", "words"), UNKNOWN)
def test_unknown_arguments_are_refused_with_a_suggestion(
    client: Client, call: Callable[[Any], Any], name: str, words: str
) -> None:
    for kind in (TypeError, InvalidRequest):
        with pytest.raises(kind, match=words) as caught:
            call(client)
        assert isinstance(caught.value, UnknownArgument)
        assert (caught.value.reason, caught.value.field) == ("NO_SUCH_ARGUMENT", name)

    async def asynchronous() -> None:
        async with AsyncClient("127.0.0.1:1") as other:
            made = call(other)
            if inspect.isawaitable(made):
                await made

    with pytest.raises(UnknownArgument, match=words):
        asyncio.run(asynchronous())


def test_every_public_method_checks_its_arguments(client: Client, image: EmbeddedImage) -> None:
    for kind in (Client, AsyncClient, Session, AsyncSession, Result, Mask, Prompt):
        for name, member in inspect.getmembers(kind, inspect.isfunction):
            if name.startswith("_") and name != "__init__":
                continue
            parameters = inspect.signature(member).parameters.values()
            assert not any(each.kind is each.VAR_KEYWORD for each in parameters), f"{kind.__name__}.{name}"
            assert "See `Async" not in (member.__doc__ or "")
            assert (member.__doc__ or "").strip() or name == "__init__", f"{kind.__name__}.{name}"
    for method, name, words in (
        (Client.segment, "mask_threshold", "mask_threshold: Logit above which"),
        (AsyncClient.everything, "pred_iou_thresh", "pred_iou_thresh: Keep masks whose"),
    ):
        assert name in inspect.signature(method).parameters
        assert words in (method.__doc__ or "")
    result = client.segment(image, points=[(260, 130)])
    for call in (
        lambda: result.polygons(simplify=1),  # type: ignore[call-arg]
        lambda: result.overlay(imag=None),  # type: ignore[call-arg]
        lambda: result.to_coco(imageid=1),  # type: ignore[call-arg]
    ):
        with pytest.raises(UnknownArgument, match="did you mean"):
            call()
    with client.session(image) as session, pytest.raises(UnknownArgument, match="positive"):
        session.click(1, 1, postive=True)  # type: ignore[call-arg]


def test_sam2s_names_mean_the_same(client: Client, image: EmbeddedImage) -> None:
    points, labels = np.array([[260, 130], [400, 300]]), np.array([1, 0])
    ours = client.segment(image, points=points, labels=labels, multimask=False, outputs=("rle", "logits"))
    theirs = client.segment(
        image,
        point_coords=torch.tensor(points, requires_grad=False),
        point_labels=torch.tensor(labels),
        multimask_output=False,
        normalize_coords=True,
        return_logits=False,
    )
    assert theirs.rle == ours.rle
    logits = ours.logits
    refined = client.segment(image, points=points, labels=labels, mask=logits, multimask=False)
    assert (
        refined.rle
        == client.segment(image, points=points, labels=labels, mask_input=logits[None], multimask_output=False).rle
    )
    twice: list[dict[str, Any]] = [
        {"points": points, "point_coords": points},
        {"points": points, "labels": labels, "point_labels": labels},
        {"multimask": True, "multimask_output": False},
        {"mask": logits, "mask_input": logits},
    ]
    for arguments in twice:
        with pytest.raises(InvalidRequest) as caught:
            client.segment(image, **arguments)
        assert caught.value.reason == "TWO_NAMES"
    for arguments, reason in (
        ({"normalize_coords": False}, "NOT_PIXELS"),
        ({"return_logits": True}, "NO_FULL_SIZE_LOGITS"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            client.segment(image, **POINT, **arguments)
        assert caught.value.reason == reason


def test_values_that_mean_nothing_are_refused(client: Client, image: EmbeddedImage) -> None:
    nan, infinity = float("nan"), float("inf")
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"points": [(1, 1)], "labels": [0.7]}, "BAD_LABEL", "labels[0]"),
        ({"points": [(1, 1)], "labels": ["1"]}, "BAD_LABEL", "labels"),
        ({"points": [(1, 1), (nan, 1)]}, "NOT_FINITE", "points[1]"),
        ({"points": np.array([[1, infinity]])}, "NOT_FINITE", "points[0]"),
        ({"points": "12"}, "BAD_POINT", "points"),
        ({"points": [{"x": 1, "y": 2}]}, "BAD_POINT", "points"),
        ({"points": [(1, 1), (1, 2, 3)]}, "BAD_POINT", "points[1]"),
        ({"box": (0, 0, nan, 5)}, "NOT_FINITE", "box[2]"),
        ({"box": np.zeros((3, 4))}, "SEVERAL_BOXES", "box"),
        ({"mask": np.full((400, 600), 7)}, "BAD_MASK", "mask"),
        ({"mask": np.zeros((10, 10), bool)}, "BAD_MASK_SIZE", "mask"),
        ({"mask": np.full((128, 128), nan)}, "NOT_FINITE", "mask"),
        ({"outputs": ("rel",)}, "BAD_OUTPUT", "outputs"),
        ({"wait_s": "soon"}, "BAD_WAIT", "wait_s"),
        ({"model": 3}, "BAD_MODEL", "model"),
    ]
    for arguments, reason, field in cases:
        with pytest.raises(InvalidRequest) as caught:
            client.segment(image, **arguments)
        assert (caught.value.reason, caught.value.field) == (reason, field)
    same = client.segment(image, points=[(260, 130)], labels=[True]).rle
    for points, labels in (((260, 130), 1), (np.array([260, 130]), np.array(1)), ([[[260, 130]]], [1.0])):
        assert client.segment(image, points=points, labels=labels).rle == same  # type: ignore[arg-type]


def test_a_wrong_model_is_an_error_everywhere(client: Client, image: EmbeddedImage, photo: Path) -> None:
    model = image.model
    for name in ("", model):
        client.segment("arguments", model=name, **POINT)
    by_name: list[Callable[[], Any]] = [
        lambda: client.segment("arguments", model="nonsense", **POINT),
        lambda: client.segment(image, model="nonsense", **POINT),
        lambda: client.segment_objects("arguments", [Prompt()], model="nonsense"),
        lambda: client.session("arguments", model="nonsense").click(1, 1),
        lambda: client.prefetch("arguments", model="nonsense"),
        lambda: list(client.generate_masks("arguments", model="nonsense", points_per_side=1)),
        lambda: client.everything("arguments", model="nonsense", points_per_side=1),
        lambda: list(client.segment_many([("arguments", Prompt())], model="nonsense")),
    ]
    for call in by_name:
        with pytest.raises(InvalidRequest, match=f"embedded with the model '{model}'") as caught:
            call()
        assert (caught.value.reason, caught.value.field) == ("OTHER_MODEL", "model")
    client.segment(photo, **POINT)  # remembered, and stored
    by_picture: list[Callable[[], Any]] = [
        lambda: client.embed(photo, model="nonsense"),
        lambda: client.segment(photo, model="nonsense", **POINT),
        lambda: client.session(photo, model="nonsense").click(1, 1),
        lambda: list(client.segment_many([(photo, Prompt())], model="nonsense")),
        lambda: list(client.embed_many([photo], model="nonsense")),
    ]
    for call in by_picture:
        with pytest.raises(ImageNotFound, match="nonsense") as missing:
            call()
        assert missing.value.reason == "MODEL_NOT_FOUND"


def test_what_embed_returned_is_an_image(client: Client, image: EmbeddedImage, photo: Path) -> None:
    expected = client.segment("arguments", **POINT).rle
    assert client.segment(image, **POINT).rle == expected
    with client.session(image) as session:
        assert session.click(260, 130).rle == expected
    (((given, _), (result,)),) = client.segment_many([(image, Prompt(points=[(260, 130)]))])
    assert given is image
    assert result.rle == expected
    client.prefetch(image)
    assert client.get(image).content_key == image.content_key
    assert client.embed(image).content_key == image.content_key
    assert client.everything(image, points_per_side=1, pred_iou_thresh=0, stability_score_thresh=0)
    with pytest.raises(InvalidRequest, match="leave image_id out"):
        client.segment(image, image_id="other")
    passing = client.embed(photo, image_id="passing")
    assert client.delete(passing)
    with pytest.raises(ImageNotFound):
        client.get(passing)
    assert client.segment(passing, **POINT).rle == expected  # by its content


def test_several_boxes_are_several_objects(client: Client, image: EmbeddedImage) -> None:
    boxes = np.array([[75, 50, 500, 380], [5, 5, 300, 300]], np.float32)
    results = client.segment_objects(image, boxes=torch.from_numpy(boxes), multimask_output=False)
    assert [each.rle for each in results] == [client.segment(image, box=box, multimask=False).rle for box in boxes]
    assert client.segment(image, box=boxes[:1], multimask=False).rle == results[0].rle
    with pytest.raises(InvalidRequest, match="segment_objects"):
        client.segment(image, box=boxes)
    for wrong in (np.zeros((2, 3)), 5, [(1, 2, 3, "x")]):
        with pytest.raises(InvalidRequest) as caught:
            client.segment_objects(image, boxes=wrong)  # type: ignore[arg-type]
        assert caught.value.field.startswith("boxes")


def test_a_mask_is_a_prompt(client: Client, image: EmbeddedImage) -> None:
    result = client.segment(image, points=[(260, 130)], multimask=False)
    side = client.segment(image, outputs=("logits",)).logits.shape
    shares = cv2.resize(result.mask.astype(np.float32), side, interpolation=cv2.INTER_AREA)
    expected = client.segment(image, points=[(260, 130)], mask=20 * shares - 10, multimask=False)
    for mask in (result.mask, result.mask.astype(np.uint8), torch.from_numpy(result.mask.astype(np.uint8) * 255)):
        again = client.segment(image, points=[(260, 130)], mask=mask, multimask=False)  # type: ignore[arg-type]
        assert again.rle == expected.rle
        assert (again.mask & result.mask).sum() / (again.mask | result.mask).sum() > 0.7
    assert Prompt(mask=result.mask) == Prompt(mask=result.mask)
    assert Prompt(mask=result.mask) != Prompt(mask=~result.mask)


def test_no_such_file_is_said(client: Client, tmp_path: Path, photo: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in (str(tmp_path / "missing.jpg"), "missing.PNG", "./nothing", tmp_path / "missing"):
        for call in (
            lambda name=name: client.segment(name),
            lambda name=name: client.session(name).click(1, 1),
            lambda name=name: list(client.generate_masks(name)),
            lambda name=name: list(client.segment_many([(name, Prompt())])),
            lambda name=name: client.prefetch(name),
        ):
            with pytest.raises(InvalidRequest, match="no such file") as caught:
                call()
            assert caught.value.reason == "NO_SUCH_FILE"
    with pytest.raises(ImageNotFound):
        client.segment("missing-name")
    stored = client.embed(photo, image_id="folder/named like a file.jpg")
    assert client.segment("folder/named like a file.jpg", **POINT).content_key == stored.content_key
