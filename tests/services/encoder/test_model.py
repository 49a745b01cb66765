"""Building models, preprocessing, and the exported decoder."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from maskwire_core.config import EncoderSettings
from maskwire_core.models.registry import ModelError, add, describe
from maskwire_encoder.backends.model import Model
from maskwire_encoder.checkpoints import loading
from maskwire_encoder.decoder_export.export import to_patches
from safetensors.torch import save_file

from testing.reference.predictor import TINY, build_tiny


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(EncoderSettings(cache=tmp_path_factory.mktemp("cache"), device="cpu"))


def load(settings: EncoderSettings) -> Model:
    (source,) = loading.find(settings)
    return Model(source, settings)


@given(st.sampled_from([1, 2, 4]), st.integers(1, 4), st.integers(1, 4))
def test_patches_follow_stacked_transposed_convolutions(patch: int, rows: int, columns: int) -> None:
    """Running 2x2 stride-2 transposed convolutions that number their outputs gives the order of the patch pixels."""
    features = torch.arange(rows * patch * columns * patch, dtype=torch.float32).reshape(
        1, 1, rows * patch, columns * patch
    )
    patches = to_patches(features, patch)
    assert patches.shape == (1, rows * columns, patch * patch, 1)
    numbered = torch.arange(patch * patch, dtype=torch.float32)
    order = torch.zeros(1, 1, rows, columns)
    for _ in range(patch.bit_length() - 1):
        order = torch.nn.functional.conv_transpose2d(order, torch.ones(1, 1, 2, 2), stride=2) * 4
        order += torch.arange(4.0).reshape(2, 2).repeat(order.shape[2] // 2, order.shape[3] // 2)
    for token in range(rows * columns):
        row, column = divmod(token, columns)
        block = (slice(row * patch, (row + 1) * patch), slice(column * patch, (column + 1) * patch))
        sequence = torch.argsort(order[0, 0][block].flatten())
        assert torch.equal(features[0, 0][block].flatten()[sequence], patches[0, token, :, 0])
        assert torch.equal(torch.sort(order[0, 0][block].flatten()).values, numbered)


def find_and_build(**arguments: object) -> str:
    model = arguments.pop("model")
    settings = EncoderSettings(model=model if isinstance(model, list) else [model], **arguments)  # type: ignore[arg-type]
    fingerprints = [loading.build(source).fingerprint for source in loading.find(settings)]
    return fingerprints[-1]


def test_checkpoints_by_name_by_config_and_as_safetensors_are_one_model(tiny_checkpoint: Path, tmp_path: Path) -> None:
    by_name = find_and_build(model="sam2.1_hiera_tiny", checkpoint=tiny_checkpoint)
    assert find_and_build(model="facebook/sam2.1-hiera-tiny", checkpoint=tiny_checkpoint) == by_name
    assert find_and_build(model="mine", config=TINY, checkpoint=tiny_checkpoint) == by_name
    weights = torch.load(tiny_checkpoint, weights_only=True)["model"]
    save_file(weights, tmp_path / "tiny.safetensors")
    assert find_and_build(model="mine", config=TINY, checkpoint=tmp_path / "tiny.safetensors") == by_name
    add(tmp_path, describe("added", TINY, tmp_path / "tiny.safetensors"))
    assert find_and_build(model=["demo", "added"], models=tmp_path) == by_name
    weights["sam_mask_decoder.iou_token.weight"] += 1e-3
    save_file(weights, tmp_path / "tiny.safetensors")
    assert find_and_build(model="mine", config=TINY, checkpoint=tmp_path / "tiny.safetensors") != by_name


def test_unusable_models_are_refused_with_a_remedy(tiny_checkpoint: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(tiny_checkpoint.read_bytes()[:1000])
    nonsense = tmp_path / "nonsense.yaml"
    nonsense.write_text("a: 1\n")
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    (renamed / "sam2_hiera_tiny.pt").write_bytes(broken.read_bytes())
    changed = tmp_path / "changed.pt"
    changed.write_bytes(b"\x80before")
    add(tmp_path, describe("added", TINY, changed))
    changed.write_bytes(b"\x80after")
    cases: list[tuple[dict[str, object], str]] = [
        ({"model": "sam3"}, "no model 'sam3'"),
        ({"model": "sam2.1_hiera_large", "models": tmp_path}, "no checkpoint at"),
        ({"model": "sam2.1_hiera_small", "checkpoint": tiny_checkpoint}, "does not fit"),
        ({"model": "sam2_hiera_tiny", "checkpoint": tiny_checkpoint}, "does not fit"),
        ({"model": "sam2.1_hiera_tiny", "checkpoint": broken}, "is truncated"),
        ({"model": "mine", "config": "no/such.yaml", "checkpoint": tiny_checkpoint}, "no configuration 'no/such.yaml'"),
        ({"model": "mine", "config": str(nonsense), "checkpoint": tiny_checkpoint}, "has no 'model' section"),
        ({"model": "mine", "config": TINY}, "--config needs --checkpoint"),
        ({"model": ["demo", "mine"], "checkpoint": tiny_checkpoint}, "belongs to a single --model"),
        ({"model": "sam2.1_hiera_tiny", "models": tiny_checkpoint.parent}, "bytes instead of 156008466"),
        ({"model": "sam2_hiera_tiny", "models": renamed}, "is truncated"),
        ({"model": "added", "models": tmp_path}, "SHA-256 .* instead of"),
    ]
    for arguments, message in cases:
        with pytest.raises(ModelError, match=message):
            find_and_build(**arguments)


def test_random_models_differ(tiny_checkpoint: Path) -> None:
    assert not torch.equal(
        build_tiny(1).no_mem_embed, torch.load(tiny_checkpoint, weights_only=True)["model"]["no_mem_embed"]
    )
