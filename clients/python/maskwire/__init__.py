"""Maskwire: SAM 2 as a service. Encode an image once, click on it anywhere.

from maskwire import Client

with Client() as mw:
    image = mw.embed("photo.jpg", image_id="photo-1")
    result = mw.segment("photo-1", points=[(500, 375)], labels=[1])
    result.save_overlay("out.png")
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# gRPC's own fork handlers abort or crash some children of a process that has open connections. Without them, a child
# that uses a client gets the error FORKED. gRPC reads this variable when it is imported, so it must be set before.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

if TYPE_CHECKING:
    from maskwire.async_client import AsyncClient
    from maskwire.automatic_masks import FoundMask, Update
    from maskwire.blocking_session import Session
    from maskwire.blocking_track import Track
    from maskwire.client import Client
    from maskwire.embedded_image import EmbeddedImage
    from maskwire.errors import (
        DeadlineExceeded,
        FailedPrecondition,
        ImageNotFound,
        InvalidRequest,
        MaskwireError,
        NotAllowed,
        NotAuthenticated,
        OutputMissing,
        Overloaded,
        ServerUnavailable,
        UnknownArgument,
    )
    from maskwire.large_tiff import LargeTiff
    from maskwire.mask import Mask
    from maskwire.prompts import Prompt
    from maskwire.results import Result
    from maskwire.session import AsyncSession
    from maskwire.track import AsyncTrack
    from maskwire.tracked_frame import TrackedFrame
    from maskwire.transport.credentials import Tls

_HOMES = {
    "AsyncClient": "async_client",
    "AsyncSession": "session",
    "AsyncTrack": "track",
    "Client": "client",
    "DeadlineExceeded": "errors",
    "EmbeddedImage": "embedded_image",
    "FailedPrecondition": "errors",
    "FoundMask": "automatic_masks",
    "ImageNotFound": "errors",
    "InvalidRequest": "errors",
    "LargeTiff": "large_tiff",
    "Mask": "mask",
    "MaskwireError": "errors",
    "NotAllowed": "errors",
    "NotAuthenticated": "errors",
    "OutputMissing": "errors",
    "Overloaded": "errors",
    "Prompt": "prompts",
    "Result": "results",
    "ServerUnavailable": "errors",
    "Session": "blocking_session",
    "Tls": "transport.credentials",
    "Track": "blocking_track",
    "TrackedFrame": "tracked_frame",
    "UnknownArgument": "errors",
    "Update": "automatic_masks",
}

__all__ = [
    "AsyncClient",
    "AsyncSession",
    "AsyncTrack",
    "Client",
    "DeadlineExceeded",
    "EmbeddedImage",
    "FailedPrecondition",
    "FoundMask",
    "ImageNotFound",
    "InvalidRequest",
    "LargeTiff",
    "Mask",
    "MaskwireError",
    "NotAllowed",
    "NotAuthenticated",
    "OutputMissing",
    "Overloaded",
    "Prompt",
    "Result",
    "ServerUnavailable",
    "Session",
    "Tls",
    "Track",
    "TrackedFrame",
    "UnknownArgument",
    "Update",
    "__version__",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: the servers need only the stubs of this package, and the command line starts faster.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
