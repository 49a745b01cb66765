"""What runs the image encoder, and the check that its masks are torch's."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from maskwire import Client
from maskwire_core.config import EncoderSettings
from maskwire_core.models.registry import ModelError
from maskwire_encoder.backends import openvino_hiera
from maskwire_encoder.backends.accuracy_cache import AccuracyCache
from maskwire_encoder.backends.features import ImageFeatures
from maskwire_encoder.backends.model import Model
from maskwire_encoder.backends.openvino_hiera import OpenVinoBackend
from maskwire_encoder.backends.selection import LEAST_CPU_IOU, Backend, TorchBackend, choose
from maskwire_encoder.checkpoints import loading

from testing.reference.predictor import build_demo, build_random
from testing.servers import server
from testing.warm import run_module
from testing.wire import picture

BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def small(config: str) -> Any:
    """A published configuration with small images, in which windows of 14 and 7 tokens need padding."""
    return build_random(f"configs/{config}.yaml", seed=1, changes=["model.image_size=256"])


@pytest.mark.parametrize(
    "config",
    [
        "sam2.1/sam2.1_hiera_t",
        "sam2.1/sam2.1_hiera_s",
        pytest.param("sam2.1/sam2.1_hiera_b+", marks=pytest.mark.slow),
        pytest.param("sam2.1/sam2.1_hiera_l", marks=pytest.mark.slow),
        "sam2/sam2_hiera_t",
    ],
)
def test_openvino_in_fp32_equals_torch(config: str) -> None:
    sam = small(config)
    image = torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    ours = OpenVinoBackend(sam, "fp32", 0).encode(tuple(image))
    for one, expected in zip(ours, TorchBackend(ImageFeatures(sam).eval(), 256).encode(tuple(image)), strict=True):
        assert one.keys() == expected.keys()
        for name, values in expected.items():
            assert one[name].dtype == np.float32
            np.testing.assert_allclose(one[name], values, atol=1e-4 * np.abs(values).max(), rtol=0, err_msg=name)


def test_results_are_not_overwritten_by_the_next_image() -> None:
    sam = small("sam2.1/sam2.1_hiera_t")
    backend = OpenVinoBackend(sam, "fp32", 0)
    first, second = torch.randn(2, 3, 256, 256)
    (kept,) = backend.encode((first,))
    before = kept["image_embed"].copy()
    backend.encode((second,))
    np.testing.assert_array_equal(kept["image_embed"], before)


@pytest.fixture
def chosen(tmp_path: Path) -> Callable[..., Backend]:
    """Chooses, with a cache of its own."""
    return lambda sam, **settings: choose(sam, EncoderSettings(device="cpu", cache=tmp_path, **settings), "f")


def test_the_fastest_that_agrees_is_chosen_and_remembered(
    chosen: Callable[..., Backend], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sam = build_demo().eval()
    with caplog.at_level(logging.INFO):
        fast = chosen(sam)
        kept = json.loads((tmp_path / "openvino.json").read_text())
        *refused, taken = kept.values()
        assert taken >= LEAST_CPU_IOU > max(refused, default=0)
        assert fast.precision == (openvino_hiera.PRECISIONS if BF16 else ("fp32",))[len(refused)]
        assert isinstance(fast, OpenVinoBackend)
        assert f"encoding with OpenVINO in {fast.precision}: mean IoU {taken:.4f}" in caplog.text
        assert "to compare with" in caplog.text
        caplog.clear()
        again = chosen(sam)
        assert (type(again), again.precision) == (OpenVinoBackend, fast.precision)
        assert "to compare with" not in caplog.text
        assert chosen(sam, precision="fp32").precision == "fp32"
        (tmp_path / "openvino.json").write_text("damaged")
        caplog.clear()
        assert chosen(sam).precision == fast.precision
        assert "to compare with" in caplog.text
    assert isinstance(chosen(sam, backend="torch"), TorchBackend)
    assert AccuracyCache(tmp_path / "openvino.json").get("another model", fast.precision) is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    known = AccuracyCache(tmp_path / "file" / "openvino.json")
    known.put(0.5, "m")
    assert known.get("m") is None


WRONG_PX = 256


def wrong(change: Callable[[Any], None]) -> Callable[[Any, str], Any]:
    """Writes another model's encoder than it is asked for."""
    build = openvino_hiera.build

    def built(sam: Any, precision: str) -> Any:
        other = build_demo(WRONG_PX).eval()
        change(other)
        return build(other, precision)

    return built


def without_a_block(sam: Any) -> None:
    with torch.no_grad():
        sam.image_encoder.trunk.blocks[4].mlp.layers[1].weight.zero_()


def with_coarse_features(sam: Any) -> None:
    with torch.no_grad():
        sam.sam_mask_decoder.conv_s0.weight.zero_()


@pytest.mark.parametrize("change", [without_a_block, pytest.param(with_coarse_features, marks=pytest.mark.slow)])
def test_wrong_masks_are_refused(
    change: Callable[[Any], None],
    chosen: Callable[..., Backend],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sam = build_demo(WRONG_PX).eval()
    monkeypatch.setattr(openvino_hiera, "build", wrong(change))
    assert isinstance(chosen(sam), TorchBackend)
    assert "not encoding with OpenVINO in fp32: mean IoU 0." in caplog.text
    with pytest.raises(ModelError, match="does not give this model's masks"):
        chosen(sam, backend="openvino")


def test_an_unknown_architecture_is_left_to_torch(
    chosen: Callable[..., Backend], caplog: pytest.LogCaptureFixture
) -> None:
    sam = build_demo().eval()
    sam.image_encoder.neck.fpn_top_down_levels = [0, 1, 2, 3]
    assert isinstance(chosen(sam), TorchBackend)
    assert "cannot run this model" in caplog.text


def test_without_openvino(chosen: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch) -> None:
    sam = build_demo().eval()
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert isinstance(chosen(sam), TorchBackend)
    for demanded in ({"backend": "openvino"}, {"precision": "bf16"}):
        with pytest.raises(ModelError, match=r"pip install 'maskwire-server\[openvino\]'"):
            chosen(sam, **demanded)
    with pytest.raises(ModelError, match="--precision bf16"):
        chosen(sam, backend="torch", precision="bf16")
    with pytest.raises(ModelError, match="is for CUDA"):
        chosen(sam, precision="fp16")


def test_precision_is_a_part_of_the_content_key() -> None:
    (source,) = loading.find(EncoderSettings())
    torch_fp32 = Model(source, EncoderSettings(device="cpu", backend="torch"))
    openvino_fp32 = Model(source, EncoderSettings(device="cpu", precision="fp32"))
    fp32 = torch_fp32.arithmetic_of("auto", False)
    assert fp32 == openvino_fp32.arithmetic_of("auto", False)  # they agree to rounding
    if BF16:
        bf16 = Model(source, EncoderSettings(device="cpu", precision="bf16"))
        assert bf16.arithmetic_of("auto", False) != fp32


@pytest.mark.parametrize("options", [("--backend", "torch"), ("--backend", "openvino"), ("--precision", "fp32")])
def test_servers_with_each_backend(options: tuple[str, ...], valkey: str) -> None:
    data = picture(90, 300, 200)
    with (
        server("maskwire_decoder", valkey) as decoder,
        server("maskwire_encoder", valkey, *options) as encoder,
        Client(encoder, decoder) as client,
    ):
        assert client.segment(data, points=[(150, 100)]).mask.shape == (200, 300)


def test_a_server_that_cannot_have_its_backend_says_why(valkey: str) -> None:
    result = run_module("maskwire_encoder", "--redis-url", valkey, "--backend", "torch", "--precision", "bf16")
    assert result.returncode == 1
    assert "--precision bf16" in result.stderr
    assert "Traceback" not in result.stderr
