"""All published configurations, with seeded random weights in real checkpoint files, through running services."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sam2
import torch
from maskwire import Client, Prompt
from maskwire_core.models.registry import PUBLISHED
from safetensors.torch import save_file

from testing.reference.predictor import Answer, Reference, build_random, over_white, random_prompt
from testing.servers import EXACT, Stack, server
from testing.wire import embed

# In each run, test_prompts.py has sam2.1_hiera_tiny as it is published, also as it is stored in fp16, and those below
# are smaller. The others, each for half a minute and more, run with --all.
OWN = [("sam2/sam2_hiera_s", 256), ("sam2.1/sam2.1_hiera_t", 512), ("sam2.1/sam2.1_hiera_l", 256)]
ALL_KINDS = ("tiny", "small")
FP16_LOGITS = 0.05  # measured: at most 0.012, on logits up to 25


def prompts_of(name: str, width: int, height: int, mask: Any) -> list[tuple[dict[str, Any], bool]]:
    """Prompts with multimask or without: every kind for the small models, a click for the large ones. Both for the same
    prompts are compared in test_prompts.py."""
    random = np.random.default_rng(7)
    click = {"points": [(width / 2, height / 2)], "labels": [1]}
    if not name.endswith(ALL_KINDS):
        return [(click, True)]
    many = random.uniform((0, 0), (width, height), (64, 2)).astype(np.float32).tolist()
    prompts = [random_prompt(random, kind, width, height) for kind in ("points", "box", "both", "none")]
    prompts += [click, {"points": many, "labels": [1, 0] * 32}, {"mask": mask}, {**click, "mask": mask}]
    return [(prompt, index % 2 == 0) for index, prompt in enumerate(prompts)]


def check(client: Client, image_id: str, prompt: dict[str, Any], multimask: bool, answer: Answer, bound: float) -> None:
    result = client.segment(
        image_id=image_id, **prompt, multimask=multimask, every=True, outputs=("rle", "logits"), logits_dtype="float32"
    )
    ours = np.stack([mask.logits for mask in result.candidates])
    np.testing.assert_allclose(ours, answer.logits, atol=bound, rtol=0)
    np.testing.assert_allclose([mask.score for mask in result.candidates], answer.scores, atol=bound / 10)
    for mask, expected, unsure in zip(result.candidates, answer.masks, answer.unsure, strict=True):
        either = (mask.array | expected).sum()
        assert not either or (mask.array & expected).sum() / either >= 0.999
        if bound <= 1e-3:
            assert not ((mask.array != expected) & ~unsure).any()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", PUBLISHED)
def test_masks_are_those_of_sam2(name: str, exact: Stack, photo: Path, tmp_path: Path) -> None:
    model = build_random(PUBLISHED[name].config, seed=3)
    checkpoint = tmp_path / f"{name}.pt"
    torch.save({"model": model.state_dict()}, checkpoint)
    rgb = over_white(photo)
    reference = Reference(model, rgb)
    mask = reference.predict({"points": [(200, 150)], "labels": [1]}, multimask=True).logits[0]
    prompts = prompts_of(name, rgb.shape[1], rgb.shape[0], mask)
    answers = [reference.predict(prompt, multimask) for prompt, multimask in prompts]
    boxes = np.array([(50, 60, 300, 330), (10, 20, 200, 300)], np.float32)
    _, _, together = reference.predictor.predict(box=boxes, multimask_output=True)
    del reference, model

    options = ("--model", name, "--checkpoint", str(checkpoint))
    started = server("maskwire_encoder", exact.redis_url, *EXACT, *options)
    with started as encoder, Client(encoder, exact.decoder, timeout_s=600) as client:
        for codec, bound in (("fp32", 1e-3), ("fp16", FP16_LOGITS))[: 2 if name.endswith("tiny") else 1]:
            image_id = embed(encoder, photo.read_bytes(), codec)
            for (prompt, multimask), answer in zip(prompts, answers, strict=True):
                check(client, image_id, prompt, multimask, answer, bound)
            objects = client.segment_objects(
                None,
                [Prompt(box=box) for box in boxes],
                image_id=image_id,
                every=True,
                outputs=("logits",),
                logits_dtype="float32",
            )
            for result, expected in zip(objects, together, strict=True):
                np.testing.assert_allclose([m.logits for m in result.candidates], expected, atol=bound)
    checkpoint.unlink()


@pytest.mark.parametrize(("published", "size"), OWN)
def test_a_model_of_another_size_from_a_configuration_of_ones_own(
    published: str, size: int, exact: Stack, photo: Path, tmp_path: Path
) -> None:
    """A YAML file with another image_size, and weights as safetensors."""
    config = f"configs/{published}.yaml"
    own, weights = tmp_path / "own.yaml", tmp_path / "own.safetensors"
    text = (Path(sam2.__file__).parent / config).read_text()
    own.write_text(text.replace("image_size: 1024", f"image_size: {size}"))
    model = build_random(config, 4, [f"model.image_size={size}"])
    save_file(model.state_dict(), weights)
    prompt = {"points": [(300, 200), (20, 20)], "labels": [1, 0]}
    answer = Reference(model, over_white(photo)).predict(prompt, multimask=True)
    del model
    options = ("--model", "own", "--config", str(own), "--checkpoint", str(weights))
    started = server("maskwire_encoder", exact.redis_url, *EXACT, *options)
    with started as encoder, Client(encoder, exact.decoder) as client:
        check(client, client.embed(photo).image_id, prompt, True, answer, 1e-3)
    weights.unlink()
