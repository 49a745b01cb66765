"""Embeddings that are stored through a transform fitted to their model (--store-codec klt)."""

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from maskwire import Client, EmbeddedImage, Mask, Prompt
from maskwire_core.models.registry import ModelError
from maskwire_core.storage.embedding import Header, pack, unpack
from maskwire_decoder.predictor import Predictor
from maskwire_encoder.backends.features import NAMES, ImageFeatures
from maskwire_encoder.backends.model import Model
from maskwire_encoder.checkpoints import loading
from maskwire_encoder.image_input.reading import read_image
from maskwire_encoder.transform.comparison import Comparison
from maskwire_encoder.transform.fitting import Fit
from maskwire_encoder.transform.photographs import OWN, Photographs
from PIL import Image

from testing import small_model
from testing.paths import COFFEE, ROOT
from testing.servers import server

ASKED = 0.98
FEWEST = 16
PHOTOGRAPHS = [ROOT / "examples" / name for name in ("coffee.jpg", "coins.jpg", "rocket.jpg", "demo.jpg")]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A model this small gains nothing from a second thread, which waits for the first busily."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keeps the transform, so that it is fitted once."""
    return tmp_path_factory.mktemp("small")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fewest that a transform is fitted to and measured on, of those that come with Maskwire."""
    folder = tmp_path_factory.mktemp("photographs")
    for photograph in sorted(OWN.glob("*.jpg"))[:FEWEST]:
        (folder / photograph.name).symlink_to(photograph)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path, photographs: Path) -> Model:
    settings = small_model.settings(folder, store_codec="klt", store_iou=ASKED, fit_on=photographs)
    (source,) = loading.find(settings)
    return Model(source, settings)


@pytest.fixture(scope="module")
def encoders(model: Model, folder: Path, photographs: Path, valkey: str) -> Iterator[tuple[str, str]]:
    """One that stores klt, and one that stores fp32."""
    options = [word for name, value in small_model.options(folder).items() for word in (f"--{name}", value)]
    options += ["--cache", str(folder), "--store-iou", str(ASKED), "--fit-on", str(photographs)]
    klt = server("maskwire_encoder", valkey, *options, "--store-codec", "klt")
    exact = server("maskwire_encoder", valkey, *options, "--store-codec", "fp32")
    with klt as first, exact as second:
        yield first, second


def test_the_exported_decoder_takes_planes_as_the_values_that_they_stand_for(model: Model) -> None:
    assert model.transform is not None
    (tensors,) = model.encode(model.prepare(read_image(COFFEE.read_bytes(), 10**6).pixels)[None])
    planes = model.to_store(tensors, "klt")
    header = Header("n", "k" * 64, "small", "f", model.decoder.digest, 400, 600, "klt", 1.5)
    stored = unpack(pack(header, planes)).tensors
    predictor = Predictor(model.decoder, threads=1)
    values = {name: each.reshape(tensors[name].shape) for name, each in model.transform.values(planes).items()}
    expected = predictor.prepare(values)
    for name, got in predictor.prepare(stored).items():
        scale = max(1, float(np.abs(expected[name]).max()))
        np.testing.assert_allclose(got, expected[name], rtol=0, atol=1e-4 * scale)


def test_a_decoder_answers_on_a_store_of_both_with_the_iou_that_was_asked_for(
    encoders: tuple[str, str], valkey: str
) -> None:
    """On photographs that the transform is neither fitted to nor measured on. Clicks and boxes count together: of 80
    clicks alone, a single odd one would move the mean by 0.002."""
    ious: list[float] = []
    with (
        server("maskwire_decoder", valkey) as decoder,
        Client(encoders[0], decoder) as klt,
        Client(encoders[1], decoder) as fp32,
    ):
        for client, name in ((klt, "klt"), (fp32, "fp32")):
            (told,) = client.models()
            assert (told.store_codec, told.klt_iou >= ASKED) == (name, name == "klt")
        for photograph in PHOTOGRAPHS:
            small = klt.embed(photograph, image_id=f"klt {photograph.name}")
            large = fp32.embed(photograph, image_id=f"fp32 {photograph.name}")
            assert small.stored_bytes < large.stored_bytes / 8

            def compare(prompts: list[Prompt], small: EmbeddedImage, large: EmbeddedImage) -> list[Mask]:
                """Compares the masks that are best on the exact embedding, and returns them."""
                best = []
                exact = fp32.segment_objects(large, prompts, every=True)
                for one, other in zip(klt.segment_objects(small, prompts, every=True), exact, strict=True):
                    index = int(np.argmax([each.score for each in other.candidates]))
                    a, b = one.candidates[index].array, other.candidates[index].array
                    ious.append(np.count_nonzero(a & b) / max(1, np.count_nonzero(a | b)))
                    best.append(other.candidates[index])
                return best

            places = [((x + 0.5) / 5 * small.width, (y + 0.5) / 4 * small.height) for x in range(5) for y in range(4)]
            masks = compare([Prompt(points=[place]) for place in places], small, large)
            boxes = [cv2.boundingRect(mask.array.astype(np.uint8)) for mask in masks]
            prompts = [Prompt(box=(x, y, x + width, y + height)) for x, y, width, height in boxes if width and height]
            compare(prompts, small, large)
    print(f"mean IoU {np.mean(ious):.4f} of {len(ious)} masks")
    assert np.mean(ious) >= ASKED


def test_a_step_that_is_far_too_coarse_is_known_by_some_of_the_photographs(folder: Path, photographs: Path) -> None:
    settings = small_model.settings(folder)
    (source,) = loading.find(settings)
    sam, *_ = loading.build(source)
    features = ImageFeatures(sam).eval()
    with torch.no_grad():
        measured = [features(each) for each in Photographs(photographs, 10**6).to_measure(sam.image_size)]
    fit = Fit(sam)
    fit.add(measured[0])
    bases = {name: each.basis(2**-5) for name, each in zip(NAMES, fit.directions(), strict=True)}
    every, few = Comparison(sam, measured), Comparison(sam, measured[:6])
    mean, _ = few.iou(bases, 0)
    assert mean < 0.99
    assert every.iou(bases, 1) == few.iou(bases, 0)
    assert every.iou(bases, 0)[0] != mean  # as it is when no mean is hopeless: over all of them


def test_a_model_that_cannot_keep_its_masks_is_stored_as_fp16_and_says_so(
    folder: Path, photographs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = small_model.settings(folder, store_codec="klt", store_iou=1, fit_on=photographs)
    (source,) = loading.find(settings)
    with caplog.at_level(logging.WARNING):
        model = Model(source, settings)
    assert (model.store_codec, model.transform) == ("fp16", None)
    assert "image_klt" not in model.decoder.graphs
    assert "small: embeddings are stored as fp16, since klt reaches a mean IoU of" in caplog.text


def test_a_transform_is_fitted_to_one_half_of_a_folder_and_measured_on_the_other(tmp_path: Path) -> None:
    for level in range(100):
        Image.new("L", (4, 4), level).save(tmp_path / f"{level:02}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    photographs = Photographs(tmp_path, 16)
    levels = [
        [round(float(one[0, 0, 0, 0] * 0.229 + 0.485) * 255) for one in half(8)]
        for half in (photographs.to_fit, photographs.to_measure)
    ]
    assert [len(half) for half in levels] == [32, 32]
    assert sorted(itertools.chain(*levels)) == [index * 100 // 64 for index in range(64)]
    (tmp_path / "00.png").write_bytes(b"")
    changed = Photographs(tmp_path, 16)
    assert changed.digest != photographs.digest
    with pytest.raises(ModelError, match=r"--fit-on: .*00\.png: .*; take it out of the folder"):
        next(changed.to_fit(8))


def test_a_folder_that_nothing_can_be_fitted_to_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"--fit-on .* has 0 pictures; put 16 or more into it"):
        Photographs(tmp_path, 16)
    with pytest.raises(ModelError, match=r"--fit-on .*none: No such file or directory; name a folder of pictures"):
        Photographs(tmp_path / "none", 16)
