"""An exported mask decoder: what an encoder publishes and a decoder worker runs."""

import hashlib
import io
import json
import zipfile
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from maskwire_core.errors import CorruptValue

_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class DecoderConfig:
    """What a decoder worker must know of a model beside its graphs.

    Attributes:
        model: Name under which the encoder serves the model.
        fingerprint: Digest of its weights and configuration.
        image_size: Side of the model's square input in pixels.
        mask_size: Side of its low-resolution masks.
        dynamic_multimask: Whether an unstable single mask gives way to the best of the candidates.
        stability_delta: Logit offset of the stability score.
        stability_threshold: Stability score below which that happens.
    """

    model: str
    fingerprint: str
    image_size: int
    mask_size: int
    dynamic_multimask: bool
    stability_delta: float
    stability_threshold: float


@dataclass(frozen=True)
class DecoderBundle:
    """Graphs and constants of one mask decoder.

    Attributes:
        config: See `DecoderConfig`.
        decoder: ONNX model from embedding and prompt to masks.
        mask_encoder: ONNX model from a mask prompt to its dense embedding.
        no_mask: 1xC fp32, the dense embedding where there is no mask prompt.
    """

    config: DecoderConfig
    decoder: bytes
    mask_encoder: bytes
    no_mask: NDArray[np.float32]

    @cached_property
    def packed(self) -> bytes:
        """The bundle as one uncompressed zip file, the same bytes for the same content."""
        no_mask = io.BytesIO()
        np.save(no_mask, self.no_mask, allow_pickle=False)
        files = {
            "config.json": json.dumps(asdict(self.config), sort_keys=True).encode(),
            "decoder.onnx": self.decoder,
            "mask_encoder.onnx": self.mask_encoder,
            "no_mask.npy": no_mask.getvalue(),
        }
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name, content in files.items():
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
        return buffer.getvalue()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `packed`, in hex: the key under which it is published."""
        return hashlib.sha256(self.packed).hexdigest()

    @classmethod
    def unpack(cls, packed: bytes, digest: str) -> "DecoderBundle":
        """Reads `packed` again.

        Raises:
            CorruptValue: The bytes do not have that digest, or are of another version of Maskwire.
        """
        if hashlib.sha256(packed).hexdigest() != digest:
            raise CorruptValue("an exported decoder does not have the digest it is named by")
        try:
            with zipfile.ZipFile(io.BytesIO(packed)) as archive:
                return cls(
                    config=DecoderConfig(**json.loads(archive.read("config.json"))),
                    decoder=archive.read("decoder.onnx"),
                    mask_encoder=archive.read("mask_encoder.onnx"),
                    no_mask=np.load(io.BytesIO(archive.read("no_mask.npy")), allow_pickle=False),
                )
        except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise CorruptValue(f"an exported decoder cannot be read: {error}") from error
