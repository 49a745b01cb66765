"""ONNX graphs and the constants that they share, as encoders publish them: bundles, and archives of them."""

import hashlib
import io
import json
import math
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from maskwire_core.errors import CorruptValue

Config = TypeVar("Config")

_EPOCH = (1980, 1, 1, 0, 0, 0)
_LEVEL = 1  # of compression: higher ones make weights hardly smaller


@dataclass(frozen=True)
class OnnxGraph:
    """A serialized ONNX model, and the names of its external initializers."""

    model: bytes
    weights: tuple[str, ...]


@dataclass(frozen=True)
class GraphArchive:
    """What an archive holds.

    Attributes:
        config: What its reader must know besides the graphs, as JSON values.
        graphs: Graphs by name.
        weights: The initializers of all graphs by name.
    """

    config: Mapping[str, Any]
    graphs: Mapping[str, OnnxGraph]
    weights: Mapping[str, NDArray[Any]]

    def pack(self, compressed: bool = False) -> bytes:
        """Returns a zip file, by default without compression. Equal archives give equal bytes."""
        needed = {name: graph.weights for name, graph in self.graphs.items()}
        described = {"config": dict(self.config), "graphs": needed}
        files = {"bundle.json": json.dumps(described, sort_keys=True).encode()}
        files |= {f"{name}.onnx": graph.model for name, graph in sorted(self.graphs.items())}
        for name, array in sorted(self.weights.items()):
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            files[f"{name}.npy"] = content.getvalue()
        buffer, method = io.BytesIO(), zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content_bytes in files.items():
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), content_bytes, method, _LEVEL)
        return buffer.getvalue()

    @classmethod
    def unpack(cls, packed: bytes, digest: str, kind: str) -> "GraphArchive":
        """The inverse of `pack`.

        Args:
            packed: The archive.
            digest: SHA-256 that it must have, in hex.
            kind: What it is, for errors: "an exported decoder".

        Raises:
            CorruptValue: The bytes do not have this digest, or another version of Maskwire wrote them.
        """
        if hashlib.sha256(packed).hexdigest() != digest:
            raise CorruptValue(f"{kind} does not have the digest it is named by")
        try:
            with zipfile.ZipFile(io.BytesIO(packed)) as archive:
                if any(file.compress_type != zipfile.ZIP_STORED for file in archive.infolist()):
                    raise CorruptValue(f"{kind} is compressed")
                described = json.loads(archive.read("bundle.json"))
                graphs = {
                    name: OnnxGraph(archive.read(f"{name}.onnx"), tuple(weights))
                    for name, weights in described["graphs"].items()
                }
                names = sorted({name for graph in graphs.values() for name in graph.weights})
                return cls(
                    described["config"], graphs, {name: _read_array(archive.read(f"{name}.npy")) for name in names}
                )
        except (KeyError, TypeError, ValueError, AttributeError, zipfile.BadZipFile) as error:
            raise CorruptValue(f"{kind} cannot be read: {error}") from error


@dataclass(frozen=True)
class Bundle(ABC, Generic[Config]):
    """Graphs that belong together, and the constants that they share.

    Attributes:
        KIND: What it is, for errors: "an exported decoder".
        NEEDED: Names of the graphs that it must have.
        config: Configuration, a dataclass.
        graphs: Graphs by name.
        weights: The initializers of all graphs by name.
    """

    KIND: ClassVar[str]
    NEEDED: ClassVar[Set[str]]

    config: Config
    graphs: Mapping[str, OnnxGraph]
    weights: Mapping[str, NDArray[Any]]

    @staticmethod
    @abstractmethod
    def read_config(described: Mapping[str, Any]) -> Config:
        """The inverse of `dataclasses.asdict`."""

    @cached_property
    def packed(self) -> bytes:
        """The bundle as an archive; see `GraphArchive.pack`."""
        config: Any = self.config
        return GraphArchive(asdict(config), self.graphs, self.weights).pack()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `packed`, in hex, under which the bundle is published."""
        return hashlib.sha256(self.packed).hexdigest()

    @classmethod
    def unpack(cls, packed: bytes, digest: str) -> Self:
        """The inverse of `packed`.

        Raises:
            CorruptValue: The bytes do not have this digest, or another version of Maskwire wrote them.
        """
        archive = GraphArchive.unpack(packed, digest, cls.KIND)
        try:
            config = cls.read_config(archive.config)
        except (KeyError, TypeError) as error:
            raise CorruptValue(f"{cls.KIND} cannot be read: {error}") from error
        if missing := cls.NEEDED - set(archive.graphs):
            raise CorruptValue(f"{cls.KIND} lacks {', '.join(sorted(missing))}")
        return cls(config, archive.graphs, archive.weights)


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
