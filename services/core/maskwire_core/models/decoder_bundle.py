"""Exported mask decoders: encoders publish them, and decoders run them."""

import hashlib
import io
import json
import math
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
"""Value of a graph's input that chooses masks: the candidate with the highest predicted IoU. 0 chooses the single mask,
1 to 3 one of the three candidates."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class MaskDefaults:
    """Defaults of automatic mask generation, with the names and values of sam2's SAM2AutomaticMaskGenerator."""

    pred_iou_thresh: float = 0.8  # masks with a predicted IoU up to this are dropped
    stability_score_thresh: float = 0.95  # masks with a stability score below this are dropped
    stability_score_offset: float = 1.0  # how far the mask threshold is raised and lowered for that score, in logits
    box_nms_thresh: float = 0.7  # IoU of boxes above which two masks of one crop count as duplicates
    crop_nms_thresh: float = 0.7  # the same for masks of different crops


@dataclass(frozen=True)
class DecoderConfig:
    """What a decoder must know about a model besides its graphs."""

    model: str  # name under which the encoder serves the model
    fingerprint: str  # digest of its weights and configuration
    image_size: int  # side of the model's square input in pixels
    mask_size: int  # side of its low-resolution masks in pixels
    dynamic_multimask: bool  # whether the best candidate replaces an unstable single mask
    stability_delta: float  # offset of the stability score, in logits
    stability_threshold: float  # stability score below which a single mask is unstable
    everything: MaskDefaults = field(default_factory=MaskDefaults)  # other models' scores differ from SAM 2's own

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> "DecoderConfig":
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**described, "everything": MaskDefaults(**described["everything"])})


@dataclass(frozen=True)
class DecoderGraph:
    """A serialized ONNX model, and the names of its external initializers."""

    model: bytes
    weights: tuple[str, ...]


@dataclass(frozen=True)
class DecoderBundle:
    """The graphs of one mask decoder, and the constants that they share.

    Attributes:
        config: Configuration.
        graphs: Graphs by name:
            image_fp32, image_fp16: from a stored embedding to what all prompts on it need.
            mask: from that and a mask prompt to image tokens that include the mask.
            click: masks for a prompt of few points without a mask prompt.
            refine: masks for a prompt of few points on image tokens that may include a mask.
            plain: masks for any prompt.
        weights: The initializers of all graphs by name.
    """

    config: DecoderConfig
    graphs: Mapping[str, DecoderGraph]
    weights: Mapping[str, NDArray[Any]]

    @cached_property
    def packed(self) -> bytes:
        """The bundle as an uncompressed zip file. Equal bundles give equal bytes."""
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
        """SHA-256 of `packed`, in hex, under which the bundle is published."""
        return hashlib.sha256(self.packed).hexdigest()

    @classmethod
    def unpack(cls, packed: bytes, digest: str) -> "DecoderBundle":
        """The inverse of `packed`.

        Raises:
            CorruptValue: The bytes do not have this digest, or another version of Maskwire wrote them.
        """
        if hashlib.sha256(packed).hexdigest() != digest:
            raise CorruptValue("an exported decoder does not have the digest it is named by")
        try:
            with zipfile.ZipFile(io.BytesIO(packed)) as archive:
                if any(file.compress_type != zipfile.ZIP_STORED for file in archive.infolist()):
                    raise CorruptValue("an exported decoder is compressed")
                described = json.loads(archive.read("bundle.json"))
                graphs = {
                    name: DecoderGraph(archive.read(f"{name}.onnx"), tuple(weights))
                    for name, weights in described["graphs"].items()
                }
                names = sorted({name for graph in graphs.values() for name in graph.weights})
                weights = {name: _read_array(archive.read(f"{name}.npy")) for name in names}
                bundle = cls(DecoderConfig.from_dict(described["config"]), graphs, weights)
        except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise CorruptValue(f"an exported decoder cannot be read: {error}") from error
        if missing := GRAPHS - set(bundle.graphs):
            raise CorruptValue(f"an exported decoder lacks {', '.join(sorted(missing))}")
        return bundle


def _read_array(data: bytes) -> NDArray[Any]:
    """Reads what `numpy.save` wrote, after checking that the data are as long as they say: numpy would allocate first.

    Raises:
        ValueError: They are not, or have another form.
    """
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array has another version than Maskwire writes")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"an array of {dtype} has {len(data)} bytes, which do not fit its shape {shape}")
    array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array
