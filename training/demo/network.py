"""The demo model's trainable parts: SAM2Base without what follows objects through videos."""

from dataclasses import replace
from pathlib import Path

import torch
from hydra.utils import instantiate
from maskwire_core.config import EncoderSettings
from maskwire_core.models.registry import DEMO
from maskwire_encoder.checkpoints import loading
from safetensors.torch import load_file
from torch import Tensor, nn

STRIDE = 16
"""Pixels of the input, on a side, to a token of the image embedding."""


def source(weights: Path | None = None) -> loading.ModelSource:
    """The demo model as the encoder finds it, with the package's weights or others of the same shape."""
    (found,) = loading.find(EncoderSettings.model_validate({"model": [DEMO], "checkpoint": weights}))
    return found


class Network(nn.Module):
    """Image encoder, prompt encoder and mask decoder of the configuration that is served as `demo`.

    Parameters have SAM2Base's names. `forward.encode` and `decoder.decode` run it; this class only holds it.

    Attributes:
        size: Side of the square input in pixels, a multiple of 32. No parameter depends on it.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        tokens = [size // STRIDE, size // STRIDE]
        changes = {
            "image_size": size,
            "memory_attention.layer.self_attention.feat_sizes": tokens,
            "memory_attention.layer.cross_attention.feat_sizes": tokens,
        }
        demo = source()
        sam = instantiate(loading.configuration(replace(demo, changes={**demo.changes, **changes})))
        self.size = size
        self.image_encoder = sam.image_encoder
        self.sam_prompt_encoder = sam.sam_prompt_encoder
        self.sam_mask_decoder = sam.sam_mask_decoder
        self.no_mem_embed = sam.no_mem_embed

    @property
    def fourier(self) -> Tensor:
        """2x128: the random frequencies of the positional code; drawn once, not trained."""
        matrix: Tensor = self.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
        return matrix

    @classmethod
    def fresh(cls, size: int, seed: int, peak: float = 5.0) -> "Network":
        """Random weights in which a click already finds its place.

        In the attentions between prompt and image, queries and keys start as the same projection: the positional code
        of a click then matches that of its own place (by about `peak` before the softmax). Without this, finding the
        place takes a third of the training.
        """
        torch.manual_seed(seed)
        network = cls(size)
        network.fourier.copy_(network.fourier.half())  # as it will be stored
        transformer = network.sam_mask_decoder.transformer
        layers = [
            attention
            for layer in transformer.layers
            for attention in (layer.cross_attn_token_to_image, layer.cross_attn_image_to_token)
        ]
        for attention in (*layers, transformer.final_attn_token_to_image):
            width = attention.internal_dim // attention.num_heads
            # 128: squared length of a positional code, 256 sines and cosines.
            deviation = (peak * width**0.5 / (width * 128)) ** 0.5
            nn.init.normal_(attention.q_proj.weight, 0, deviation)
            attention.k_proj.weight.data.copy_(attention.q_proj.weight.data)
            nn.init.zeros_(attention.q_proj.bias)
            nn.init.zeros_(attention.k_proj.bias)
        return network

    def load(self, weights: Path) -> None:
        """Takes the weights of a .safetensors file, such as the package's."""
        self.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
