"""Messages for the generated stubs, and the errors in their replies."""

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from maskwire.v1 import encoder_pb2, encoder_pb2_grpc, types_pb2
from PIL import Image

MANY_CALLS: list[tuple[str, Any]] = [
    ("grpc.service_config", json.dumps({"connectionScaling": {"maxConnectionsPerSubchannel": 100}})),
    ("grpc.max_connections_per_subchannel_cap", 100),
]
"""Options of a channel that opens as many connections as its calls need: servers answer 32 of each at a time."""


def picture(seed: int, width: int = 60, height: int = 40) -> bytes:
    """Returns a PNG of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def as_base64(data: bytes) -> dict[str, str]:
    """Returns an image file in the form in which the /sam2 routes take it."""
    return {"type": "base64", "value": base64.b64encode(data).decode()}


def header(data: bytes, **fields: Any) -> encoder_pb2.EncodeImageHeader:
    """Returns the header of an upload of an image file, with its digest and size; `fields` replace or add fields."""
    digest = hashlib.sha256(data).digest()
    return encoder_pb2.EncodeImageHeader(**{"sha256": digest, "size_bytes": len(data), **fields})


def frames(data: bytes, chunk: int = 1000, **fields: Any) -> Iterator[encoder_pb2.EncodeImageRequest]:
    """Yields the messages of an upload: the header, with `fields` as in `header`, and chunks of so many bytes."""
    yield encoder_pb2.EncodeImageRequest(header=header(data, **fields))
    for start in range(0, len(data), chunk):
        yield encoder_pb2.EncodeImageRequest(chunk=data[start : start + chunk])


def embed(encoder: str, data: bytes, codec: str, namespace: str = "") -> str:
    """Embeds an image file that is not stored yet.

    Args:
        encoder: The encoder's address.
        data: The file.
        codec: How it is to be stored, whatever the encoder's settings say: "fp32" or "fp16".
        namespace: Where; empty for the default one.

    Returns:
        The image's name.
    """
    stored_as = types_pb2.DATA_TYPE_FP32 if codec == "fp32" else types_pb2.DATA_TYPE_FP16
    with grpc.insecure_channel(encoder) as channel:
        messages = frames(data, 1 << 20, namespace=namespace, stored_as=stored_as)
        answer = encoder_pb2_grpc.EncoderServiceStub(channel).EncodeImage(messages)
    assert not answer.cached
    return str(answer.image.image_id)


def details(error: Any) -> tuple[str, str, str]:
    """Returns status code, reason and field of a failed call, given its grpc.RpcError or AioRpcError."""
    trailers = dict(error.trailing_metadata())
    return (error.code().name, *described(Status.FromString(trailers["grpc-status-details-bin"])))


def described(status: Status) -> tuple[str, str]:
    """Returns the reason and the field in the details of a status; the field is "" if it names none."""
    info, bad = ErrorInfo(), BadRequest()
    for detail in status.details:
        if not detail.Unpack(info):
            detail.Unpack(bad)
    assert info.domain == "maskwire"
    return info.reason, bad.field_violations[0].field if bad.field_violations else ""


def failing(call: Any) -> tuple[str, str, str]:
    """Calls a function that must raise grpc.RpcError. Returns the error's `details`."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return details(caught.value)
