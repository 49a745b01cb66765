"""Embeddings that are stored through a transform fitted to their model (--store-codec klt)."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from maskwire import Client
from maskwire_core.storage.embedding import Header, pack, unpack
from maskwire_decoder.predictor import Predictor
from maskwire_encoder.backends.model import Model
from maskwire_encoder.checkpoints import loading
from maskwire_encoder.image_input.reading import read_image

from testing import small_model
from testing.paths import COFFEE
from testing.servers import server

ASKED = 0.97


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keeps the transform, so that it is fitted once."""
    return tmp_path_factory.mktemp("small")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    settings = small_model.settings(folder, store_codec="klt", store_iou=ASKED)
    (source,) = loading.find(settings)
    return Model(source, settings)


@pytest.fixture(scope="module")
def encoders(model: Model, folder: Path, valkey: str) -> Iterator[tuple[str, str]]:
    """One that stores klt, and one that stores fp32."""
    options = [word for name, value in small_model.options(folder).items() for word in (f"--{name}", value)]
    options += ["--cache", str(folder), "--store-iou", str(ASKED)]
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
    model: Model, encoders: tuple[str, str], valkey: str
) -> None:
    clicks = [(x, y) for x in range(60, 600, 120) for y in range(50, 400, 100)]
    masks, sizes = [], []
    with server("maskwire_decoder", valkey) as decoder:
        for name, encoder in zip(("klt", "fp32"), encoders, strict=True):
            with Client(encoder, decoder) as client:
                (told,) = client.models()
                assert (told.store_codec, told.klt_iou >= ASKED) == (name, name == "klt")
                image = client.embed(COFFEE, image_id=name)
                sizes.append(image.stored_bytes)
                masks.append([client.segment(name, points=[click], every=True).candidates for click in clicks])
    assert sizes[0] < sizes[1] / 8
    ious = []
    for got, exact in zip(*masks, strict=True):
        best = int(np.argmax([each.score for each in exact]))
        a, b = got[best].array, exact[best].array
        ious.append(np.count_nonzero(a & b) / max(1, np.count_nonzero(a | b)))
    assert np.mean(ious) >= ASKED


def test_a_model_that_cannot_keep_its_masks_is_stored_as_fp16_and_says_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = small_model.settings(folder, store_codec="klt", store_iou=1)
    (source,) = loading.find(settings)
    with caplog.at_level(logging.WARNING):
        model = Model(source, settings)
    assert (model.store_codec, model.transform) == ("fp16", None)
    assert "image_klt" not in model.decoder.graphs
    assert "small: embeddings are stored as fp16, since klt reaches a mean IoU of" in caplog.text
