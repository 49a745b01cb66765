"""What is measured: a model, an image with its features, and a store and a decoder that serve them."""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from maskwire.cli.local_store import store_program
from maskwire_core.models.decoder_bundle import DecoderBundle, DecoderConfig
from maskwire_core.storage.embedding import Header, pack
from maskwire_core.storage.exports import publish_decoder
from maskwire_core.storage.store import Store
from maskwire_encoder.decoder_export.export import export_decoder, to_patches
from numpy.typing import NDArray
from PIL import Image

from testing.paths import ROOT
from testing.reference.predictor import Reference, build_tiny
from testing.servers import server, store_server

WIDTH, HEIGHT = 1800, 1200
CLICK = (700.0, 500.0)
THREADS = os.cpu_count() or 1


@dataclass
class Subject:
    """SAM 2.1 tiny with random weights, and the sample photograph at 1800x1200 encoded by it.

    Attributes:
        model: The model in sam2.
        reference: sam2's predictor, with the image set.
        bundle: The exported decoder.
        tensors: The image's embedding in the stored layout, fp32.
    """

    model: Any
    reference: Reference
    bundle: DecoderBundle
    tensors: dict[str, NDArray[np.float32]]

    @property
    def features(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The image's features in the form in which sam2's mask decoder takes them."""
        predictor = self.reference.predictor
        return predictor._features["image_embed"], predictor._features["high_res_feats"]


@cache
def subject() -> Subject:
    """Builds the subject on first use."""
    torch.set_num_threads(THREADS)
    model = build_tiny().eval()
    image = Image.open(ROOT / "examples" / "coffee.jpg").convert("RGB").resize((WIDTH, HEIGHT))
    reference = Reference(model, np.array(image))
    features = reference.predictor._features
    high_res_0, high_res_1 = features["high_res_feats"]
    tensors = {
        "image_embed": to_patches(features["image_embed"], 1)[0, :, 0],
        "high_res_1": to_patches(high_res_1, 2)[0],
        "high_res_0": to_patches(high_res_0, 4)[0],
    }
    config = DecoderConfig("sam2.1_hiera_tiny", "f", 1024, 256, True, 0.05, 0.98)
    return Subject(
        model, reference, export_decoder(model, config), {name: tensor.numpy() for name, tensor in tensors.items()}
    )


def packed(codec: str, key: str = "b" * 64, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """Returns the embedding as it is stored, for an image of any size."""
    bundle = subject().bundle
    header = Header("default", key, "tiny", "f", bundle.digest, height, width, codec, time.time())
    return pack(header, subject().tensors)


def fill(url: str, codec: str, name: str = "photo", width: int = WIDTH, height: int = HEIGHT) -> None:
    """Puts the decoder and, under a name, the image into a store."""
    key = hashlib.sha256(name.encode()).hexdigest()
    with contextlib.closing(Store(url)) as store:
        publish_decoder(store, subject().bundle)
        store.put_embedding("default", key, packed(codec, key, width, height), 3600)
        store.set_alias("default", name, key, 3600)


@contextlib.contextmanager
def served(codec: str = "fp32") -> Iterator[tuple[str, str]]:
    """Runs a store that holds the image, and a decoder. Yields the decoder's address and the store's URL."""
    with store_server(store_program()) as url:
        fill(url, codec)
        with server("maskwire_decoder", url, cold=True) as address:
            yield address, url
