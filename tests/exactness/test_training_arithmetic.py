"""The training's forward passes in window order: the same arithmetic, and the same gradients, as sam2's."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from maskwire_encoder.checkpoints import loading
from torch.nn import functional as F

from training.demo.average import mean
from training.demo.decoder import BACKGROUND, CORNER_1, CORNER_2, EMPTY, FOREGROUND, PAD, decode, places
from training.demo.export import export
from training.demo.forward import encode
from training.demo.network import Network, source
from training.demo.order import order, unorder

SIZE = 64


def network(seed: int, size: int = SIZE) -> Network:
    """Weights of which none is special, so that none can be forgotten."""
    made = Network.fresh(size, seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.03)
    return made


@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 2, 4, 8]))
def test_four_consecutive_tokens_are_a_block_and_the_order_can_be_undone(rows: int, columns: int, side: int) -> None:
    height, width = rows * side, columns * side
    raster = torch.arange(2.0 * height * width).reshape(2, height, width, 1)
    ordered = order(raster, side)
    assert torch.equal(unorder(ordered, height, width, side), raster)
    assert torch.equal(ordered[0, 0].sort(0).values[:, 0], raster[0, :side, :side].flatten())
    if side > 1:
        blocks = F.max_pool2d(raster.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        pooled = ordered.unflatten(2, (-1, 4)).amax(3)
        assert torch.equal(unorder(pooled, height // 2, width // 2, side // 2), blocks)


def same_gradients(ours: Network, theirs: Network) -> None:
    others = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        wanted, gradient = (torch.zeros(()) if got is None else got for got in (others[name].grad, parameter.grad))
        assert float((gradient - wanted).norm()) <= 1e-3 * float(wanted.norm()) + 1e-5, name


@pytest.mark.parametrize("size", [64, 128, 160, 224])
def test_encoding_and_its_gradients_equal_sam2s(size: int) -> None:
    ours, theirs = network(size, size), network(size, size)
    rgb = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    planes = (rgb.float() / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    high_0, high_1, embed = theirs.image_encoder(planes.permute(0, 3, 1, 2))["backbone_fpn"]
    head = theirs.sam_mask_decoder
    embed = embed + theirs.no_mem_embed.reshape(1, -1, 1, 1)
    expected = embed, head.conv_s1(high_1), head.conv_s0(high_0)
    sides = (size // 16, 2), (size // 8, 4), (size // 4, 8)
    rasters = [
        unorder(features, side, side, cell).permute(0, 3, 1, 2)
        for features, (side, cell) in zip(encode(ours, rgb), sides, strict=True)
    ]
    for got, wanted in zip(rasters, expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
        weights = torch.randn_like(wanted)
        (got * weights).mean().backward(retain_graph=True)
        (wanted * weights).mean().backward(retain_graph=True)
    same_gradients(ours, theirs)


@pytest.mark.parametrize(("size", "masked"), [(64, True), (128, False), (160, True)])
def test_decoding_and_its_gradients_equal_sam2s(size: int, masked: bool) -> None:
    ours, theirs = network(size, size), network(size, size)
    tokens = (size // 16) ** 2
    features = torch.randn(2, tokens, 256), torch.randn(2, tokens, 4, 64), torch.randn(2, tokens, 16, 32)
    points = torch.rand(4, 2, 2) * size
    labels = torch.tensor([[FOREGROUND, BACKGROUND], [CORNER_1, CORNER_2], [PAD, FOREGROUND], [FOREGROUND, FOREGROUND]])
    mask = torch.randn(4, 1, size // 4, size // 4) * 5 if masked else None

    sparse, dense = theirs.sam_prompt_encoder((points, labels), None, mask)
    sides = (size // 16, 2), (size // 8, 4), (size // 4, 8)
    embed, high_1, high_0 = (
        unorder(feature, side, side, cell).permute(0, 3, 1, 2).repeat_interleave(2, 0)
        for feature, (side, cell) in zip(features, sides, strict=True)
    )
    place = theirs.sam_prompt_encoder.get_dense_pe()
    expected = theirs.sam_mask_decoder.predict_masks(embed, place, sparse, dense, False, [high_0, high_1])

    # A prompt that is longer by an empty place is the same prompt.
    padded = F.pad(points, (0, 0, 0, 1)), F.pad(labels, (0, 1), value=EMPTY)
    ordered = order(mask.permute(0, 2, 3, 1), 8).flatten(1) if mask is not None else None
    got = decode(ours, features, places(ours), *padded, ordered, torch.ones(4, dtype=torch.bool) if masked else None)
    logits = unorder(got.logits.flatten(0, 1)[..., None], size // 4, size // 4, 8).reshape(expected[0].shape)
    torch.testing.assert_close(logits, expected[0], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(got.iou, expected[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got.object_score, expected[3], atol=1e-4, rtol=1e-4)
    weights = torch.randn_like(logits)
    ((logits * weights).mean() + got.iou.sum() + got.object_score.sum()).backward()
    ((expected[0] * weights).mean() + expected[1].sum() + expected[3].sum()).backward()
    same_gradients(ours, theirs)


def test_a_mask_counts_only_where_there_is_one() -> None:
    made = network(1)
    with torch.no_grad():
        features, place = encode(made, torch.randint(0, 256, (1, SIZE, SIZE, 3), dtype=torch.uint8)), places(made)
        points, labels = torch.rand(2, 1, 2) * SIZE, torch.ones(2, 1, dtype=torch.long)
        plain = decode(made, features, place, points, labels)
        mask = torch.randn(2, (SIZE // 4) ** 2)
        mixed = decode(made, features, place, points, labels, mask, torch.tensor([True, False]))
    torch.testing.assert_close(mixed.logits[1], plain.logits[1])
    assert float((mixed.logits[0] - plain.logits[0]).abs().max()) > 1e-3


def test_the_mean_of_weights_counts_each_file_once(tmp_path: Path) -> None:
    made, files = network(4, 512), [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    stored = made.no_mem_embed.detach().half().float()
    export(made, files[0])
    with torch.no_grad():
        made.no_mem_embed.mul_(4)
    export(made, files[1])
    torch.testing.assert_close(mean(files).no_mem_embed.detach(), 2.5 * stored, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(mean([files[0], *files]).no_mem_embed.detach(), 2 * stored, atol=1e-3, rtol=1e-3)
    export(network(5, 512), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors .* different random weights"):
        mean([files[0], tmp_path / "other.safetensors"])


def test_exported_weights_are_those_that_were_trained(tmp_path: Path) -> None:
    made = network(4, 512)
    export(made, tmp_path / "demo.safetensors")
    sam = loading.build(source(tmp_path / "demo.safetensors")).model
    served = sam.state_dict()
    for name, tensor in made.state_dict().items():
        assert torch.equal(served[name], tensor.half().float()), name
    again = Network(128)
    again.load(tmp_path / "demo.safetensors")
    assert torch.equal(again.fourier, made.fourier)
    with torch.no_grad():
        made.no_mem_embed.fill_(1e6)
    with pytest.raises(ValueError, match="no_mem_embed"):
        export(made, tmp_path / "broken.safetensors")
