"""Checkpoints as trainers, transfers and accidents leave them: unwrapped and said, or refused with the reason."""

import argparse
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from maskwire_core.models.registry import ModelError
from maskwire_encoder.checkpoints import loading
from maskwire_encoder.checkpoints.loading import ModelSource, build
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from testing.reference.predictor import build_random
from testing.small_model import options

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return load_file(loading._DEMO_WEIGHTS)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    return options(tmp_path_factory.mktemp("config"))["config"]


@pytest.fixture(scope="module")
def bare(config: str) -> str:
    return build(ModelSource("small", config, loading._DEMO_WEIGHTS))[1]


def loaded(config: str, path: Path) -> tuple[str, str]:
    """The fingerprint, and what was said."""
    said: list[str] = []
    fingerprint = build(ModelSource("small", config, path), said.append).fingerprint
    return fingerprint, "".join(said).removeprefix(f"{path}: ")


def refused(config: str, path: Path) -> str:
    with pytest.raises(ModelError) as error:
        build(ModelSource("small", config, path))
    return str(error.value)


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


def adam(weights: Weights) -> dict[str, Any]:
    state = {index: {"step": torch.tensor(3.0), "exp_avg": tensor} for index, tensor in enumerate(weights.values())}
    return {"state": state, "param_groups": [{"lr": 1e-4, "params": list(state)}]}


WRAPPED: dict[str, tuple[Callable[[Weights], object], str]] = {
    "bare": (lambda w: w, ""),
    "published": (lambda w: {"model": w}, ""),
    "state_dict": (lambda w: {"state_dict": w, "epoch": 3}, "unwrapped state_dict"),
    "model_state_dict": (
        lambda w: {"model_state_dict": w, "optimizer_state_dict": adam(w), "loss": 0.2},
        "unwrapped model_state_dict, left out optimizer_state_dict",
    ),
    "trainer": (lambda w: {"model": w, "optimizer": adam(w)}, "unwrapped model, left out optimizer"),
    "ddp": (lambda w: prefixed("module.", w), "removed prefix module."),
    "ddp in state_dict": (
        lambda w: {"state_dict": prefixed("module.", w)},
        "unwrapped state_dict, removed prefix module.",
    ),
    "compiled ddp": (lambda w: {"model": prefixed("module._orig_mod.", w)}, "removed prefix module._orig_mod."),
    "compiled part": (
        lambda w: {n.replace("image_encoder.", "image_encoder._orig_mod."): t for n, t in w.items()},
        "removed _orig_mod. inside names",
    ),
    "lightning": (
        lambda w: {
            "state_dict": {**prefixed("model.", w), "criterion.weight": torch.ones(4)},
            "optimizer_states": [adam(w)],
            "loops": {"epoch": 1},
            "hyper_parameters": {"lr": 1e-4},
        },
        "unwrapped state_dict, removed prefix model., left out optimizer_states",
    ),
    "lightning with another name": (
        lambda w: {"state_dict": prefixed("net.sam.", w)},
        "unwrapped state_dict, removed prefix net.sam.",
    ),
    "averaged model": (
        lambda w: {**prefixed("module.", w), "n_averaged": torch.tensor(7)},
        "removed prefix module., left out n_averaged",
    ),
    "averaged beside": (
        lambda w: {"ema": {"module": {n: t + 1 for n, t in w.items()}}, "model": w},
        "unwrapped model, left out ema, took the plain weights and not the averaged ones in ema.module",
    ),
    "averaged alone": (lambda w: {"ema_state_dict": prefixed("module.", w)}, "unwrapped ema_state_dict"),
    "deep": (lambda w: {"ckpt": {"net": {"model": w}}, "step": 1}, "unwrapped ckpt.net.model"),
    "by parts": (
        lambda w: (
            {
                part: {n.removeprefix(part + "."): t for n, t in w.items() if n.startswith(part + ".")}
                for part in ("image_encoder", "sam_prompt_encoder", "sam_mask_decoder")
            }
            | {"no_mem_embed": w["no_mem_embed"]}
        ),
        "",
    ),
    "scalars beside": (lambda w: {**w, "loss": torch.tensor(0.1), "epoch": torch.tensor([3])}, "left out loss, epoch"),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrappers_are_removed_and_said(kind: str, weights: Weights, config: str, bare: str, tmp_path: Path) -> None:
    wrap, said = WRAPPED[kind]
    torch.save(wrap(weights), tmp_path / "wrapped.pt")
    fingerprint, told = loaded(config, tmp_path / "wrapped.pt")
    assert fingerprint == bare
    assert said in told
    assert bool(said) == bool(told)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.bin"])
def test_prefixes_in_safetensors_whatever_the_ending(
    name: str, weights: Weights, config: str, bare: str, tmp_path: Path
) -> None:
    save_file(prefixed("module.model.", weights), tmp_path / name)
    assert loaded(config, tmp_path / name) == (bare, "removed prefix module.model.")
    torch.save(weights, tmp_path / name)
    assert loaded(config, tmp_path / name) == (bare, "")


def test_parts_for_videos_may_be_there_or_not(weights: Weights, config: str, bare: str, tmp_path: Path) -> None:
    model = loading.model_config.build(loading.configuration(ModelSource("small", config, Path("."))), config)
    video = {name: torch.ones_like(tensor) for name, tensor in model.state_dict().items()}
    torch.save({"model": {**video, **weights}}, tmp_path / "all.pt")
    assert loaded(config, tmp_path / "all.pt") == (bare, "")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_nan_and_infinity_are_refused_by_name_and_number(
    dtype: torch.dtype, ending: str, weights: Weights, config: str, tmp_path: Path
) -> None:
    broken = {name: tensor.to(dtype) for name, tensor in weights.items()}
    buffer = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    broken["image_encoder.trunk.pos_embed"].view(-1)[:3] = float("nan")
    broken[buffer].view(-1)[5] = float("-inf")
    path = tmp_path / f"broken{ending}"
    save_file(broken, path) if ending == ".safetensors" else torch.save({"state_dict": broken}, path)
    message = refused(config, path)
    assert "NaN or infinite" in message
    count = broken["image_encoder.trunk.pos_embed"].numel()
    assert f"image_encoder.trunk.pos_embed (3 of {count} values)" in message
    assert f"{buffer} (1 of {broken[buffer].numel()} values)" in message


def test_a_whole_broken_checkpoint_is_told_briefly(weights: Weights, config: str, tmp_path: Path) -> None:
    torch.save({name: tensor * float("nan") for name, tensor in weights.items()}, tmp_path / "nan.pt")
    message = refused(config, tmp_path / "nan.pt")
    assert f"and {len(weights) - 5} more tensors" in message
    assert len(message) < 900


def test_what_becomes_infinite_in_fp32_is_refused(weights: Weights, config: str, tmp_path: Path) -> None:
    torch.save(weights | {"no_mem_embed": weights["no_mem_embed"].double() + 1e300}, tmp_path / "large.pt")
    assert "no_mem_embed" in refused(config, tmp_path / "large.pt")


def test_misfits_are_told_by_kind(weights: Weights, config: str, tmp_path: Path) -> None:
    some = dict(weights)
    del some["no_mem_embed"]
    some["image_encoder.trunk.blocks.0.attn.qkv.lora_a"] = torch.ones(2, 3)
    some["adapter.weight"] = torch.ones(2, 3)
    some["image_encoder.trunk.pos_embed"] = torch.ones(1, 48, 3, 3)
    some["sam_mask_decoder.iou_token.weight"] = torch.ones(1, 256, dtype=torch.int8)
    torch.save({"state_dict": prefixed("module.", some)}, tmp_path / "other.pt")
    message = refused(config, tmp_path / "other.pt")
    assert "1 tensor missing, such as no_mem_embed" in message
    assert "2 tensors unexpected, such as image_encoder.trunk.blocks.0.attn.qkv.lora_a" in message
    assert "1 tensor of another shape, such as image_encoder.trunk.pos_embed (1x48x3x3 instead of 1x48x7x7)" in message
    assert "1 tensor quantised, such as sam_mask_decoder.iou_token.weight (torch.int8)" in message
    assert "removed prefix module." in message
    assert "choose the configuration that this checkpoint was trained with" in message


def test_the_configuration_that_fits_is_named(weights: Weights, config: str, tmp_path: Path) -> None:
    small = build_random("configs/sam2.1/sam2.1_hiera_s.yaml").state_dict()
    torch.save({"model": prefixed("module.", small)}, tmp_path / "s.pt")
    with pytest.raises(ModelError, match=r"these tensors fit sam2.1_hiera_small \(configs/sam2.1/sam2.1_hiera_s.yaml"):
        build(ModelSource("sam2.1_hiera_tiny", "configs/sam2.1/sam2.1_hiera_t.yaml", tmp_path / "s.pt"))
    torch.save(weights, tmp_path / "d.pt")
    with pytest.raises(ModelError, match="these tensors fit demo"):
        build(ModelSource("sam2.1_hiera_tiny", "configs/sam2.1/sam2.1_hiera_t.yaml", tmp_path / "d.pt"))


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {_Code.mark}",)

    mark = ""


def test_code_in_pickles_is_not_run(weights: Weights, config: str, tmp_path: Path) -> None:
    path = tmp_path / "code.pt"
    _Code.mark = str(tmp_path / "was_run")
    for value, named in (
        ({"model": weights, "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
        (nn.Linear(2, 2), "Linear"),
        ({"model": weights, "hook": _Code()}, "system"),
    ):
        torch.save(value, path)
        message = refused(config, path)
        assert named in message
        assert "torch.save(model.state_dict()" in message
        assert "\n" not in message
    assert not Path(_Code.mark).exists()


def _written(content: bytes) -> Callable[[Path, Weights], None]:
    return lambda path, _: path.write_bytes(content) and None


def _cut(path: Path, weights: Weights) -> None:
    torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:-1000])


def _cut_safetensors(path: Path, weights: Weights) -> None:
    save_file(weights, path)
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (_written(b""), "is empty"),
        (_written(b"<!DOCTYPE html><html><body>Sign in</body></html>"), "a web page"),
        (_written(b"\n <html lang=en>"), "a web page"),
        (_written(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"), "git lfs pull"),
        (_written(b"Not found"), "text file that begins with 'Not found'"),
        (_written(b'{"weight_map": {}}'), "text file"),
        (_written(b"\x1f\x8b\x08" + bytes(40)), "archive: unpack it"),
        (_written(bytes(range(200))), "it begins with"),
        (_written(pickle.dumps({"a": 1})), "torch.save did not write"),
        (_cut, "truncated"),
        (_cut_safetensors, "truncated"),
        (lambda path, _: torch.save({"model": {}}, path), "no tensors"),
        (lambda path, _: torch.save({"fc.weight": torch.ones(3)}, path), "1 tensors, such as fc.weight"),
        (lambda path, _: torch.save({"vision_encoder.neck.w": torch.ones(3)}, path), "Hugging Face transformers"),
        (lambda path, _: path.mkdir(), "is a folder"),
        (lambda path, _: None, "no checkpoint at"),
    ],
)
def test_files_that_are_no_checkpoints(
    write: Callable[[Path, Weights], None], told: str, weights: Weights, config: str, tmp_path: Path
) -> None:
    path = tmp_path / "it.pt"
    write(path, weights)
    assert told in refused(config, path)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("image_encoder.trunk.embed_dimm", 3, "model.image_encoder.trunk has no key 'embed_dimm'; did you mean 'embed"),
        ("image_sise", 3, "model has no key 'image_sise'; did you mean 'image_size'?"),
        ("image_encoder.neck.backbone_channel_list", [1, 2], "model.image_encoder has values that do not go together"),
        ("image_encoder.trunk._target_", "sam2.modeling.nothing.Hiera", "which does not exist"),
        ("image_encoder.trunk._target_", "os.system", "only classes of sam2 and torch.nn"),
        ("image_size", "${nowhere}", "nowhere"),
    ],
)
def test_mistakes_in_a_configuration_are_named(key: str, value: object, told: str, config: str, tmp_path: Path) -> None:
    changed = OmegaConf.load(config)
    OmegaConf.update(changed, f"model.{key}", value, force_add=True)
    (tmp_path / "own.yaml").write_text(OmegaConf.to_yaml(changed))
    message = refused(str(tmp_path / "own.yaml"), loading._DEMO_WEIGHTS)
    assert told in message
    assert str(tmp_path / "own.yaml") in message


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("model: [", "is not valid YAML"),
        ("trainer: {}", "it configures a training"),
        ("a: 1", "has no 'model' section"),
        ("model: {_target_: torch.nn.Identity}", "does not describe a SAM 2 model"),
        (None, "did you mean 'configs/sam2.1/sam2.1_hiera_t.yaml'?"),
    ],
)
def test_files_that_are_no_configurations(content: str | None, told: str, tmp_path: Path) -> None:
    path = "configs/sam2.1/sam2.1_hiera_tt.yaml"
    if content is not None:
        path = str(tmp_path / "own.yaml")
        Path(path).write_text(content)
    assert told in refused(path, loading._DEMO_WEIGHTS)
