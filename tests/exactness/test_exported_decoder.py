"""The exported decoder, graph by graph, against sam2's prompt encoder and mask decoder; test_prompts.py and
test_checkpoints.py have it at the published size."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskwire_core.errors import CorruptValue
from maskwire_core.models.decoder_bundle import DecoderBundle, DecoderConfig
from maskwire_decoder.predictor import Predictor, Prepared
from maskwire_decoder.prompts.encoding import Prediction
from maskwire_decoder.prompts.parsing import Prompt
from maskwire_encoder.decoder_export.export import export_decoder, to_patches
from numpy.typing import NDArray
from torch import Tensor

from testing.reference.predictor import TINY, build_random

SIZE = 256
CONFIG = DecoderConfig("m", "f", SIZE, SIZE // 4, True, 0.05, 0.98)


class Case:
    """A model with an image's random features, and the predictor made from it."""

    def __init__(self, config: str) -> None:
        self.model = build_random(config, 3, [f"model.image_size={SIZE}"])
        self.bundle = export_decoder(self.model, CONFIG)
        self.predictor = Predictor(self.bundle, threads=2)
        sides = ((256, SIZE // 16), (64, SIZE // 8), (32, SIZE // 4))
        self.features = [torch.randn(1, channels, side, side) for channels, side in sides]
        self.image = self.predictor.prepare(self.tensors(np.float32))

    def tensors(self, dtype: Any) -> dict[str, NDArray[Any]]:
        embed, high_1, high_0 = self.features
        laid_out = (to_patches(embed, 1)[0, :, 0], to_patches(high_1, 2)[0], to_patches(high_0, 4)[0])
        names = ("image_embed", "high_res_1", "high_res_0")
        return {name: tensor.numpy().astype(dtype) for name, tensor in zip(names, laid_out, strict=True)}

    @torch.no_grad()
    def expected(self, prompt: Prompt) -> tuple[Tensor, Tensor, Tensor]:
        """All four masks, their predicted IoU and the object score."""
        encoder, decoder = self.model.sam_prompt_encoder, self.model.sam_mask_decoder
        points, labels = torch.from_numpy(prompt.points)[None], torch.from_numpy(prompt.labels)[None].int()
        if prompt.box is not None:
            points = torch.cat([torch.from_numpy(prompt.box).reshape(1, 2, 2), points], dim=1)
            labels = torch.cat([torch.tensor([[2, 3]], dtype=torch.int32), labels], dim=1)
        mask = None if prompt.mask is None else torch.from_numpy(prompt.mask)[None, None]
        sparse, dense = encoder((points, labels) if labels.numel() else None, None, mask)
        embed, high_1, high_0 = self.features
        masks, iou, _, score = decoder.predict_masks(
            embed, encoder.get_dense_pe(), sparse, dense, False, [high_0, high_1]
        )
        return masks[0], iou[0], score[0]


@pytest.fixture(scope="module", params=[TINY, "configs/sam2/sam2_hiera_t.yaml"], ids=["2.1", "2.0"])
def case(request: pytest.FixtureRequest) -> Case:
    """2.0 and 2.1 have different heads."""
    return Case(request.param)


def random_prompt(seed: int, points: int, with_box: bool, with_mask: bool) -> Prompt:
    random = np.random.default_rng(seed)
    return Prompt(
        prompt_id="",
        points=random.uniform(0, SIZE, (points, 2)).astype(np.float32),
        labels=random.integers(0, 2, points),
        box=np.sort(random.uniform(0, SIZE, (2, 2)), axis=0).astype(np.float32).reshape(4) if with_box else None,
        mask=random.standard_normal((SIZE // 4, SIZE // 4)).astype(np.float32) if with_mask else None,
    )


def assert_close(ours: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Equal but for the order of sums and the last bit of sines: fp32 logits of up to tens, from sums over thousands of
    products. Most differ by 2.5e-6 of the largest, of random prompts one in a hundred by 7.5e-6."""
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1.5e-5 * max(1, np.abs(expected).max()))


def masks_of(case: Case, prompt: Prompt, **options: bool) -> Prediction:
    return case.predictor.predict(case.image, prompt, SIZE, SIZE, **options)


@given(st.integers(0, 2**32), st.sampled_from([0, 1, 2, 5, 9, 10, 11, 40]), st.booleans(), st.booleans())
@settings(max_examples=12, deadline=None)
def test_every_graph_equals_sam2(case: Case, seed: int, points: int, with_box: bool, with_mask: bool) -> None:
    """Few points are folded, many are not; a mask prompt changes the image's side."""
    prompt = random_prompt(seed, points, with_box, with_mask)
    if not points and not with_box and not with_mask:
        prompt = replace(prompt, points=np.zeros((1, 2), np.float32), labels=np.array([-1]))
    logits, iou, score = case.expected(prompt)
    ours = masks_of(case, prompt)
    assert_close(ours.logits, logits[1:].numpy())
    np.testing.assert_allclose(ours.iou, iou[1:].numpy(), atol=1e-5)
    assert ours.object_score == pytest.approx(float(score[0]), abs=1e-4)


def test_folded_and_plain_forms_are_the_same(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = random_prompt(1, 4, True, True)
    folded = masks_of(case, prompt)
    monkeypatch.setattr("maskwire_decoder.predictor.MOST_FOLDED", 0)
    plain = masks_of(case, prompt)
    assert case.predictor._sessions._sessions.keys() >= {("refine", 2), ("plain", 2)}
    assert_close(folded.logits, plain.logits)


@pytest.mark.parametrize("with_mask", [False, True])
def test_only_what_is_asked_for_is_the_same_as_choosing_from_all(case: Case, with_mask: bool) -> None:
    for seed in range(6):
        prompt = random_prompt(seed, 2, False, with_mask)
        logits, iou, _ = (tensor.numpy() for tensor in case.expected(prompt))
        best = 1 + int(iou[1:].argmax())
        one = masks_of(case, prompt, every=False)
        assert_close(one.logits, logits[best : best + 1])
        np.testing.assert_allclose(one.iou, iou[best : best + 1], atol=1e-5)
        # A single mask that is unstable gives way to the best (MaskDecoder._dynamic_multimask_via_stability).
        inner, outer = ((logits[0] > delta).sum() for delta in (0.05, -0.05))
        chosen = 0 if inner >= 0.98 * outer else best
        single = masks_of(case, replace(prompt, multimask=False))
        assert_close(single.logits, logits[chosen : chosen + 1])


def test_decodes_beside_each_other_do_not_disturb_each_other(case: Case) -> None:
    prompts = [random_prompt(seed, seed % 12, True, seed % 2 == 0) for seed in range(16)]
    alone = [masks_of(case, prompt) for prompt in prompts]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda prompt: masks_of(case, prompt), prompts))
    assert case.predictor._sessions._sessions.keys() >= {("click", 1), ("click", 2), ("plain", 1)}
    for one, other in zip(alone, together, strict=True):
        assert_close(one.logits, other.logits)
        assert one.iou == pytest.approx(other.iou, abs=1e-5)


def test_half_precision_embeddings_are_widened_not_rounded_again(case: Case) -> None:
    stored = case.tensors(np.float16)
    widened: Prepared = case.predictor.prepare({name: tensor.astype(np.float32) for name, tensor in stored.items()})
    for name, tensor in case.predictor.prepare(stored).items():
        np.testing.assert_array_equal(tensor, widened[name])


def test_a_bundle_is_deterministic_and_checked(case: Case) -> None:
    bundle = case.bundle
    assert export_decoder(case.model, CONFIG).digest == bundle.digest
    again = DecoderBundle.unpack(bundle.packed, bundle.digest)
    assert (again.config, again.graphs) == (bundle.config, bundle.graphs)
    assert again.packed == bundle.packed
    for damaged in (bundle.packed[:-9], bundle.packed[:5000] + b"?" + bundle.packed[5001:]):
        with pytest.raises(CorruptValue):
            DecoderBundle.unpack(damaged, bundle.digest)
    lacking = replace(bundle, graphs={"click": bundle.graphs["click"]})
    with pytest.raises(CorruptValue, match="lacks"):
        DecoderBundle.unpack(lacking.packed, lacking.digest)
