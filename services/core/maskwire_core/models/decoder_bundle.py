"""An exported mask decoder: what an encoder publishes and a decoder worker runs."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskwire_core.errors import CorruptValue

GRAPHS = {"image_fp32", "image_fp16", "mask", "click", "refine", "plain"}
BEST = 4
"""To graphs that make masks: the candidate with the highest predicted IoU. 0 is the single mask, 1 to 3 candidates."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class MaskDefaults:
    """Parameters of everything mode that a request leaves unsaid; names and defaults of SAM2AutomaticMaskGenerator.

    Attributes:
        pred_iou_thresh: Masks are kept whose predicted IoU is above this.
        stability_score_thresh: Masks are kept whose stability score is not below this.
        stability_score_offset: How far the mask threshold is raised and lowered for that score, in logits.
        box_nms_thresh: IoU of boxes above which two masks of a crop are the same.
        crop_nms_thresh: The same between crops.
    """

    pred_iou_thresh: float = 0.8
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_nms_thresh: float = 0.7


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
        everything: Defaults of everything mode, for models whose scores are unlike those of SAM 2's own.
    """

    model: str
    fingerprint: str
    image_size: int
    mask_size: int
    dynamic_multimask: bool
    stability_delta: float
    stability_threshold: float
    everything: MaskDefaults = field(default_factory=MaskDefaults)

    @classmethod
    def read(cls, described: Mapping[str, Any]) -> "DecoderConfig":
        """The configuration that `dataclasses.asdict` gave."""
        return cls(**{**described, "everything": MaskDefaults(**described["everything"])})


@dataclass(frozen=True)
class DecoderGraph:
    """An ONNX model, and the names of its external initialisers."""

    model: bytes
    weights: tuple[str, ...]


@dataclass(frozen=True)
class DecoderBundle:
    """Graphs of one mask decoder, and the constants that they share.

    Attributes:
        config: See `DecoderConfig`.
        graphs: By name. With N image tokens of C channels:
            image_fp32, image_fp16: a stored embedding to what every prompt on it needs.
            mask: that image's tokens and mask prompts to tokens that know a mask, for each of them.
            click: a prompt of few points, and no mask, to masks.
            refine: a prompt of few points on tokens that may know a mask.
            plain: any prompt.
        weights: All their initialisers by name.
    """

    config: DecoderConfig
    graphs: Mapping[str, DecoderGraph]
    weights: Mapping[str, NDArray[Any]]

    @cached_property
    def packed(self) -> bytes:
        """The bundle as one uncompressed zip file, the same bytes for the same content."""
        needed = {name: graph.weights for name, graph in self.graphs.items()}
        described = {"config": asdict(self.config), "graphs": needed}
        files = {"bundle.json": json.dumps(described, sort_keys=True).encode()}
        files |= {f"{name}.onnx": graph.model for name, graph in sorted(self.graphs.items())}
        for name, array in sorted(self.weights.items()):
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            files[f"{name}.npy"] = content.getvalue()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name, content_bytes in files.items():
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), content_bytes)
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
                described = json.loads(archive.read("bundle.json"))
                graphs = {
                    name: DecoderGraph(archive.read(f"{name}.onnx"), tuple(weights))
                    for name, weights in described["graphs"].items()
                }
                names = sorted({name for graph in graphs.values() for name in graph.weights})
                weights = {name: np.load(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False) for name in names}
                bundle = cls(DecoderConfig.read(described["config"]), graphs, weights)
        except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise CorruptValue(f"an exported decoder cannot be read: {error}") from error
        if missing := GRAPHS - set(bundle.graphs):
            raise CorruptValue(f"an exported decoder lacks {', '.join(sorted(missing))}")
        return bundle
