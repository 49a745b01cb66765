"""The command `maskwire status`."""

import json
import sys
from typing import Any

import grpc
from rich.console import Console
from rich.table import Table

from maskwire.cli.health import TIMEOUT_S, health
from maskwire.cli.options import StatusOptions
from maskwire.transport.caller import Caller, token_or_default
from maskwire.transport.channels import Channels
from maskwire.transport.credentials import Credentials
from maskwire.v1 import encoder_pb2, encoder_pb2_grpc

_ANSWERS = ("SERVING", "NOT_SERVING")
_SERVICES = {"encoder": "maskwire.v1.EncoderService", "decoder": "maskwire.v1.DecoderService"}


def show_status(options: StatusOptions) -> None:
    """Prints the health and models of the servers; exits with 1 if one does not serve."""
    servers: list[dict[str, Any]] = []
    credentials = Credentials()
    encoders = Channels("encoder", options.encoder, credentials)
    decoders = Channels("decoder", options.decoder, credentials)
    for channels in (encoders, decoders):
        for address in channels.addresses if options.kind in (None, channels.kind) else []:
            server: dict[str, Any] = {"kind": channels.kind, "address": address, "health": health(address)}
            if server["health"] in _ANSWERS and health(address, _SERVICES[channels.kind]) == "NO_SUCH_SERVICE":
                server["health"] = "WRONG_KIND"
            if channels.kind == "encoder" and server["health"] == "SERVING":
                server |= _list_models(address, credentials)
            servers.append(server)
    if options.as_json:
        print(json.dumps({"servers": servers}))
    else:
        table = Table("server", "address", "health", "models")
        for server in servers:
            models = "\n".join(_describe(model) for model in server.get("models", [])) or server.get("models_error", "")
            table.add_row(server["kind"], server["address"], server["health"], models)
        Console().print(table)
    failed = [server for server in servers if server["health"] != "SERVING"]
    if failed:
        for server in [] if options.as_json else failed:
            print(f"error: {_remedy(server)}", file=sys.stderr)
        sys.exit(1)


def served_models() -> dict[str, str]:
    """Returns by name how the models that the encoders serve are stored; nothing if no encoder answers."""
    credentials = Credentials()
    served: dict[str, str] = {}
    for address in Channels("encoder", None, credentials).addresses:
        served.update({str(model["name"]): _stored(model) for model in _list_models(address, credentials)["models"]})
    return served


def _remedy(server: dict[str, Any]) -> str:
    kind, address = server["kind"], server["address"]
    if server["health"] == "WRONG_KIND":
        return f"{address} is not {'an encoder' if kind == 'encoder' else 'a decoder'}; give the right --{kind}"
    if server["health"] == "UNREACHABLE":
        return f"no {kind} answers at {address}; start one with 'maskwire up', or set --{kind}"
    return f"the {kind} at {address} answers that it is not serving; its log says why"


def _list_models(address: str, credentials: Credentials) -> dict[str, Any]:
    with credentials.connect_blocking(address) as channel:
        stub = encoder_pb2_grpc.EncoderServiceStub(channel)
        metadata = Caller(token_or_default(None)).metadata
        try:
            models = stub.ListModels(encoder_pb2.ListModelsRequest(), timeout=TIMEOUT_S, metadata=metadata).models
        except grpc.RpcError as error:  # needs a token, unlike health
            return {"models": [], "models_error": error.code().name}
    names = ("name", "fingerprint", "image_size_px", "is_default", "device", "note", "store_codec", "klt_iou")
    return {"models": [{name: getattr(model, name) for name in names} for model in models]}


def _describe(model: dict[str, Any]) -> str:
    note = f"\n  {model['note']}" if model["note"] else ""
    size = f"{model['image_size_px']} px, {model['device']}"
    return f"{model['name']}, {size}, {model['fingerprint'][:12]}{_stored(model)}{note}"


def _stored(model: dict[str, Any]) -> str:
    """How a model's embeddings are stored; older encoders do not tell."""
    cost = f" (mean IoU {model['klt_iou']:.4f})" if model["klt_iou"] else ""
    return f", stored as {model['store_codec']}{cost}" if model["store_codec"] else ""
