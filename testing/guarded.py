"""Servers that require tokens."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from maskwire import Client
from maskwire.cli.free_ports import free_port
from maskwire.cli.health import health
from maskwire.cli.local_store import store_program
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc, encoder_pb2, encoder_pb2_grpc
from maskwire_core.tenancy import tokens
from maskwire_core.tenancy.tokens import RIGHTS

from testing import small_model
from testing.processes import wait_until
from testing.servers import store_server
from testing.warm import running_module

PASSWORD = "a-password-of-the-store"
_PLAIN = 8  # tokens without particular fields that are issued at once, as servers look at their file only now and then


@dataclass
class Guarded:
    """An encoder and a decoder that require tokens and log at level DEBUG.

    Attributes:
        encoder: Address of the encoder.
        decoder: Address of the decoder.
        file: The servers' token file.
        logs: Log files of the encoder and the decoder.
        redis_url: URL of the store, with its password.
        decoder_pid: Process of the decoder.
        issued: The tokens that `token` has issued.
    """

    encoder: str
    decoder: str
    file: Path
    logs: list[Path]
    redis_url: str
    decoder_pid: int
    issued: list[str] = field(default_factory=list)
    _plain: dict[str, list[str]] = field(default_factory=dict)  # that nobody has used, by namespace

    def token(self, namespace: str = "acme", **fields: Any) -> str:
        """Issues a token, and returns it when both servers accept it.

        Args:
            namespace: The only namespace it is good for, unless `fields` has others.
            fields: Arguments of `maskwire_core.tenancy.tokens.issue`.
        """
        plain, count = self._plain.setdefault(namespace, []), 1 if fields else _PLAIN
        if not fields and plain:
            return plain.pop()
        fields = {"namespaces": [namespace], "rights": list(RIGHTS), **fields}
        texts, entries = zip(*(tokens.issue(**fields) for _ in range(count)), strict=True)
        tokens.change_tokens(self.file, lambda before: [*before, *entries])
        self.issued += texts
        for address in (self.encoder, self.decoder):
            wait_until(lambda address=address: self.knows(address, texts[0]), 10)  # type: ignore[misc]
        plain += texts[1:]
        return str(texts[0])

    def knows(self, address: str, text: str) -> bool:
        """Tells whether a server accepts a token."""
        with grpc.insecure_channel(address) as channel:
            try:
                if address == self.decoder:
                    segment = decoder_pb2_grpc.DecoderServiceStub(channel).Segment
                    segment(decoder_pb2.SegmentRequest(), metadata=bearer(text), timeout=10)
                else:
                    list_models = encoder_pb2_grpc.EncoderServiceStub(channel).ListModels
                    list_models(encoder_pb2.ListModelsRequest(), metadata=bearer(text), timeout=10)
            except grpc.RpcError as error:
                return error.code() != grpc.StatusCode.UNAUTHENTICATED
            return True

    def client(self, text: str | None, **arguments: Any) -> Client:
        return Client(self.encoder, self.decoder, token=text, **arguments)


def bearer(text: str) -> tuple[tuple[str, str], ...]:
    """Returns the gRPC metadata that carries a token."""
    return (("authorization", f"Bearer {text}"),)


@contextlib.contextmanager
def guarded_servers(folder: Path, **settings: str) -> Iterator[Guarded]:
    """An encoder of a small model and a decoder with these settings, over a store with a password."""
    chosen = small_model.options(folder)
    file = folder / "tokens.json"
    tokens.change_tokens(file, lambda entries: entries)
    ports, logs = (free_port(), free_port()), [folder / "encoder.log", folder / "decoder.log"]
    with store_server(store_program(), "--requirepass", PASSWORD) as url:
        url = url.replace("redis://", f"redis://:{PASSWORD}@")
        environment = {f"MASKWIRE_{name.upper()}": value for name, value in settings.items()}
        environment |= {"MASKWIRE_REDIS_URL": url, "MASKWIRE_TOKENS": str(file), "MASKWIRE_LOG_LEVEL": "DEBUG"}
        encoder = [word for name, value in chosen.items() for word in (f"--{name}", value)]
        commands = [("maskwire_encoder", [*encoder, "--cache", str(folder)]), ("maskwire_decoder", [])]
        processes = [
            running_module(package, "--port", str(port), *words, environment=environment, stderr=log)
            for (package, words), port, log in zip(commands, ports, logs, strict=True)
        ]
        encoder_address, decoder_address = (f"127.0.0.1:{port}" for port in ports)
        with processes[0] as one, processes[1] as two:
            for address, process in ((encoder_address, one), (decoder_address, two)):
                wait_until(lambda address=address: health(address) == "SERVING", process=process)  # type: ignore[misc]
            yield Guarded(encoder_address, decoder_address, file, logs, url, two.pid)
