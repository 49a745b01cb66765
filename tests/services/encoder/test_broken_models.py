"""Models that do not give numbers, through real servers: refused at the start, and nothing that is NaN leaves."""

import dataclasses
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from maskwire import Client, MaskwireError
from maskwire.cli.free_ports import free_port
from maskwire.cli.health import health
from maskwire_core.config import EncoderSettings
from maskwire_core.models import registry
from maskwire_core.models.cli import app as models_app
from maskwire_core.models.decoder_bundle import DecoderBundle
from maskwire_core.storage.embedding import Header, pack
from maskwire_core.storage.exports import publish_decoder
from maskwire_core.storage.store import Store, open_store
from maskwire_encoder.backends.model import Model
from maskwire_encoder.checkpoints import loading
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from testing import small_model
from testing.processes import wait_until
from testing.servers import Stack
from testing.warm import run_module, running_module

Weights = dict[str, torch.Tensor]


def _poison(name: str, value: float) -> Callable[[Weights], Weights]:
    def poisoned(weights: Weights) -> Weights:
        weights[name] = weights[name].float()
        weights[name].view(-1)[0] = value
        return weights

    return poisoned


def start(valkey: str, *options: str) -> subprocess.CompletedProcess[str]:
    return run_module("maskwire_encoder", "--port", "0", "--device", "cpu", "--redis-url", valkey, *options)


def refused(ended: subprocess.CompletedProcess[str]) -> str:
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("source", ["checkpoint", "folder", "added"])
def test_an_encoder_does_not_start_with_broken_weights(source: str, valkey: str, tmp_path: Path) -> None:
    name = "sam_mask_decoder.iou_token.weight"
    weights = _poison(name, float("nan"))(load_file(loading._DEMO_WEIGHTS))
    torch.save({"state_dict": {f"module.{key}": tensor.half() for key, tensor in weights.items()}}, tmp_path / "w.pt")
    options = ["--models", str(tmp_path), "--model", "mine"]
    if source == "checkpoint":
        options += ["--config", small_model.options(tmp_path)["config"], "--checkpoint", str(tmp_path / "w.pt")]
    elif source == "folder":
        options = ["--model", "demo", "--checkpoint", str(tmp_path / "w.pt")]
    else:
        registry.add(tmp_path, registry.describe("mine", small_model.options(tmp_path)["config"], tmp_path / "w.pt"))
    assert f"NaN or infinite, as after a training that diverged: {name} (1 of 256 values)" in refused(
        start(valkey, *options)
    )


@pytest.mark.parametrize(
    ("name", "value", "codec", "told"),
    [
        ("no_mem_embed", 1e6, "fp16", "fp16: image_embed has values of up to 1e+06, more than fp16 holds"),
        ("no_mem_embed", 3e38, "fp32", "the masks of a click have logits or scores that are NaN or infinite"),
    ],
)
def test_finite_weights_that_give_no_numbers_are_noticed_at_the_start(
    name: str, value: float, codec: str, told: str, valkey: str, tmp_path: Path
) -> None:
    save_file(_poison(name, value)(load_file(loading._DEMO_WEIGHTS)), tmp_path / "w.safetensors")
    options = small_model.options(tmp_path) | {"checkpoint": str(tmp_path / "w.safetensors"), "store-codec": codec}
    ended = start(valkey, *(word for key, setting in options.items() for word in (f"--{key}", setting)))
    assert told in refused(ended)


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_so_with_any_backend(backend: str, valkey: str, tmp_path: Path) -> None:
    save_file(_poison("no_mem_embed", 3e38)(load_file(loading._DEMO_WEIGHTS)), tmp_path / "w.safetensors")
    options = ["--checkpoint", str(tmp_path / "w.safetensors"), "--backend", backend, "--cache", str(tmp_path)]
    assert "fails on a synthetic image" in refused(start(valkey, *options))


def test_sizes_that_do_not_go_together_are_told_at_the_start(valkey: str, tmp_path: Path) -> None:
    options = small_model.options(tmp_path)
    config = Path(options["config"])
    config.write_text(config.read_text().replace("image_size: 128", "image_size: 100"))
    ended = start(valkey, *(word for key, setting in options.items() for word in (f"--{key}", setting)))
    assert "small.yaml" in refused(ended)


def test_a_wrong_name_is_told_with_the_closest(valkey: str, tmp_path: Path) -> None:
    message = refused(start(valkey, "--model", "sam2.1_hiera_tinny", "--models", str(tmp_path)))
    assert "no model 'sam2.1_hiera_tinny'; did you mean 'sam2.1_hiera_tiny'?" in message
    assert "sam2_hiera_large" in message


def test_requests_for_an_unknown_model(client: Client, photo: Path) -> None:
    with pytest.raises(MaskwireError) as error:
        client.embed(photo, model="demmo")
    assert error.value.reason == "MODEL_NOT_FOUND"
    assert "no model 'demmo'; did you mean 'demo'? served here: demo" in str(error.value)


@dataclass
class Failing:
    """An encoder whose outputs are finite at its start, and not while a file in its folder says so, and a decoder."""

    folder: Path
    encoder: str
    decoder: str


@pytest.fixture(scope="module")
def failing(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failing]:
    port, folder = free_port(), tmp_path_factory.mktemp("failing")
    encoder = f"127.0.0.1:{port}"
    with running_module("testing.failing_encoder", str(folder), str(port), stack.redis_url) as process:
        wait_until(lambda: health(encoder) == "SERVING", process=process)
        yield Failing(folder, encoder, stack.decoder)


@pytest.mark.parametrize(("factor", "told"), [("nan", "NaN or infinite"), ("1e9", "more than fp16 holds")])
def test_an_embedding_that_is_not_finite_is_an_error_and_not_stored(
    factor: str, told: str, failing: Failing, photo: Path
) -> None:
    grey = np.full((40, 60, 3), 99, np.uint8)
    with Client(failing.encoder, failing.decoder, namespace=f"overflow-{factor}") as client:
        (failing.folder / "factor").write_text(factor)
        for _ in range(2):
            with pytest.raises(MaskwireError) as error:
                client.embed(grey, image_id="grey")
            assert error.value.reason == "MODEL_OUTPUT_NOT_FINITE"
            assert told in error.value.message
            assert "high_res_1" in error.value.message
        with pytest.raises(MaskwireError) as error:
            client.segment(image_id="grey", points=[(3, 3)])
        assert error.value.reason == "IMAGE_NOT_FOUND"
        (failing.folder / "factor").unlink()
        assert client.segment(photo, points=[(300, 200)]).mask.any() in (True, False)  # others go on


@pytest.fixture(scope="module")
def broken_image(stack: Stack) -> Iterator[str]:
    """The name of an image in the store whose model gives NaN for each prompt."""
    settings = EncoderSettings(redis_url=stack.redis_url, device="cpu", backend="torch")
    (source,) = loading.find(settings)
    model = Model(source, settings)
    bundle = model.decoder
    name = next(name for name, array in bundle.weights.items() if array.ndim == 1 and array.dtype == np.float32)
    weights = {each: np.full_like(array, np.nan) if each == name else array for each, array in bundle.weights.items()}
    broken = DecoderBundle(dataclasses.replace(bundle.config, model="broken"), bundle.graphs, weights)
    (tensors,) = model.encode([model.prepare(np.zeros((64, 64, 3), np.uint8))])
    store: Store = open_store(settings.redis_url, settings.redis_timeout_s)
    header = Header("", "b" * 64, "broken", "f" * 64, broken.digest, 64, 64, "fp16", 1.0)
    namespace = "default"
    publish_decoder(store, broken)
    header = dataclasses.replace(header, namespace=namespace)
    store.put_embedding(namespace, header.content_key, pack(header, tensors), 3600)
    store.set_alias(namespace, "broken", header.content_key, 3600)
    store.close()
    yield "broken"
    with stack.client() as client:
        client.delete("broken", embedding=True)


def test_a_decoder_never_answers_with_nan(broken_image: str, client: Client) -> None:
    errors = []
    for act in (
        lambda: client.segment(image_id=broken_image, points=[(30, 30)]),
        lambda: client.segment(image_id=broken_image, box=(3, 3, 30, 30), multimask=False, outputs=("logits",)),
        lambda: list(client.generate_masks(image_id=broken_image, points_per_side=2)),
    ):
        with pytest.raises(MaskwireError) as error:
            act()
        errors.append(error.value)
    with client.session(image_id=broken_image) as session:
        with pytest.raises(MaskwireError) as error:
            session.click(30, 30)
        errors.append(error.value)
    assert {error.reason for error in errors} == {"MODEL_OUTPUT_NOT_FINITE"}
    assert all("'broken'" in error.message for error in errors)


def test_over_http_it_is_an_error_too(broken_image: str, http: httpx.Client) -> None:
    prompts: dict[str, Any] = {"prompts": [{"points": [{"x_px": 30, "y_px": 30}]}]}
    for path, body in (
        (f"/v1/images/{broken_image}/segment", prompts),
        ("/sam2/segment_image", {"image_id": broken_image, "prompts": None}),
    ):
        answer = http.post(path, json=body)
        assert answer.status_code == 500, answer.text
        assert json.loads(answer.text, parse_constant=pytest.fail)["reason"] == "MODEL_OUTPUT_NOT_FINITE"


@pytest.mark.parametrize(
    ("factor", "config", "told"),
    [
        (float("nan"), "small.yaml", "NaN or infinite"),
        (1, "configs/sam2.1/sam2.1_hiera_t.yaml", "these tensors fit demo"),
        (1, "nothing.yaml", "no configuration 'nothing.yaml'"),
    ],
)
def test_what_models_add_runs_refuses_what_cannot_be_loaded(
    factor: float, config: str, told: str, tmp_path: Path
) -> None:
    small_model.options(tmp_path)
    weights = load_file(loading._DEMO_WEIGHTS)
    torch.save({**weights, "no_mem_embed": weights["no_mem_embed"] * factor}, tmp_path / "w.pt")
    own = tmp_path / config
    model = registry.describe("mine", str(own) if own.exists() else config, tmp_path / "w.pt")
    ended = run_module("maskwire_encoder.checkpoints.check", json.dumps(dataclasses.asdict(model)))
    assert ended.returncode == 1
    assert told in json.loads(ended.stdout)["error"]


def test_models_add_checks_what_loading_will(tmp_path: Path) -> None:
    run, folder = CliRunner(), ("--models", str(tmp_path / "models"))
    config = small_model.options(tmp_path)["config"]
    weights = load_file(loading._DEMO_WEIGHTS)

    def add(content: object) -> Any:
        torch.save(content, tmp_path / "w.pt")
        return run.invoke(
            models_app, ["add", "mine", "--config", config, "--checkpoint", str(tmp_path / "w.pt"), *folder]
        )

    refused = add({"fc.weight": torch.ones(3)})
    assert refused.exit_code == 1
    assert "holds no weights of a SAM 2 model" in refused.output
    assert registry.all_added(tmp_path / "models") == []
    added = add({"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}, "optimizer": {}})
    assert added.exit_code == 0, added.output
    assert "loaded to check it" in added.output
    assert "unwrapped state_dict, removed prefix module." in added.output

    verified = run.invoke(models_app, ["verify", "mine", *folder])
    assert verified.exit_code == 0, verified.output
    assert "removed prefix module." in verified.output
    torch.save(weights, tmp_path / "w.pt")
    changed = run.invoke(models_app, ["verify", "mine", *folder])
    assert changed.exit_code == 1
    assert "has changed since 'mine' was added" in changed.output
