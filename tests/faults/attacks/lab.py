"""A lab: servers that require tokens, a tenant who works, and attackers, each a process of its own."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
from maskwire import Client
from maskwire.cli.free_ports import free_port
from maskwire.cli.supervisor import with_parent_death_signal
from maskwire_core.tenancy import tokens
from maskwire_core.tenancy.tokens import RIGHTS

from testing.paths import ROOT
from testing.servers import ready
from testing.wire import picture
from tests.faults import processes
from tests.faults.processes import Server

_PACKAGE = "tests.faults.attacks"  # pytest imports this module under another name
TENANTS = ("works", "attacks", "attacks-too")
"""Namespaces: whose clicks are measured, and who attacks."""


class Lab:
    """A store, an encoder, a decoder and a tracker, which require tokens, a gateway, and a cold tier behind the store.

    Args:
        folder: For logs and the token file.

    Attributes:
        another: A decoder that does not run until somebody starts it; nobody works with it.
        over_tls: A decoder with TLS that does not run until somebody starts it.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "tokens.json"
        tokens.change_tokens(self._file, lambda entries: entries)
        self.tokens = {name: self._issue(name) for name in TENANTS}
        self.slow_token = self._issue("attacks", bytes_per_s=1000)
        guarded = {"MASKWIRE_TOKENS": str(self._file)}
        self.store = processes.store(folder)
        self.store_url = f"redis://{self.store.address}/0"
        stores = ("--redis-url", self.store_url, "--cold-tier", str(folder / "cold"))
        self.decoder, self.another = (_server(folder, "maskwire_decoder", *stores) for _ in range(2))
        self.encoder = _server(folder, "maskwire_encoder", *stores)
        self.tracker = _server(
            folder, "maskwire_tracker", "--redis-url", self.store_url, "--encoder", self.encoder.address
        )
        self._authority, paper = trustme.CA(), folder / "decoder.pem"
        self._authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(paper)
        files = ("--tls-cert", str(paper), "--tls-key", str(paper))
        self.over_tls = _server(folder, "maskwire_decoder", *stores, *files, health_port=free_port())
        for server in (self.encoder, self.decoder, self.another, self.over_tls, self.tracker):
            server.environment = guarded
        self.gateway = processes.gateway(folder, [self.encoder], [self.decoder], warm=False)
        self.gateway.command += ["--tracker", self.tracker.address]

    @property
    def servers(self) -> dict[str, Server]:
        return {
            "encoder": self.encoder,
            "decoder": self.decoder,
            "tracker": self.tracker,
            "gateway": self.gateway,
        }

    def _issue(self, namespace: str, **fields: Any) -> str:
        text, entry = tokens.issue(namespaces=[namespace], rights=list(RIGHTS), **fields)
        tokens.change_tokens(self._file, lambda entries: [*entries, entry])
        return text

    def __enter__(self) -> "Lab":
        self.store.start().wait()
        for server in self.servers.values():
            server.start()
        for server in self.servers.values():
            server.wait()
        for name in TENANTS:
            with self.client(name) as client:
                client.embed(picture(1), image_id="small")
                client.embed(picture(2, 3000, 3000), image_id="large")
                client.segment(image_id="small", points=[(30, 20)])
        return self

    def __exit__(self, *_: object) -> None:
        for server in [*self.servers.values(), self.another, self.over_tls, self.store]:
            if server.lives:
                server.end()

    @contextlib.contextmanager
    def with_tls(self) -> Iterator[None]:
        """Has the decoder with TLS take the other one's place, except behind the gateway."""
        plain = self.decoder
        self.decoder = self.over_tls.start().wait()
        try:
            yield
        finally:
            self.decoder = plain
            self.over_tls.end()

    def client(self, tenant: str) -> Client:
        return Client(self.encoder.address, self.decoder.address, token=self.tokens[tenant])

    def target(self, tenant: str, seconds: float) -> dict[str, Any]:
        """Returns the fields of a `Target` for an attacker; tenant is empty for nobody."""
        return {
            "encoder": self.encoder.address,
            "decoder": self.decoder.address,
            "tracker": self.tracker.address,
            "gateway": self.gateway.address,
            "store": self.store_url,
            "namespace": tenant,
            "token": self.tokens.get(tenant, ""),
            "slow_token": self.slow_token,
            "image_id": "small",
            "large_id": "large",
            "seconds": seconds,
            "authority": self._authority.cert_pem.bytes().decode() if self.decoder is self.over_tls else "",
        }

    @contextlib.contextmanager
    def person(self) -> Iterator["Person"]:
        """The tenant who works."""
        with Partner("person", json.dumps(self.target("works", 0))) as partner:
            yield Person(partner)

    def dead(self) -> list[str]:
        """Names of the servers that have ended."""
        return [name for name, server in self.servers.items() if not server.lives]


def _server(folder: Path, package: str, *options: str, health_port: int | None = None) -> Server:
    made = processes.decoder(folder, "", *options, warm=False, health_port=health_port)
    made.command = [sys.executable, "-m", package, "--port", str(made.port), *options]
    if health_port is not None:
        made.command += ["--health-port", str(health_port)]
    made.log = folder / f"{package}-{made.port}.log"
    return made


class Partner:
    """A process that reads lines of JSON and answers each with one.

    Args:
        module: Which module of this package it runs.
        arguments: Its arguments.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"{_PACKAGE}.{module}", *arguments]
        self._process = subprocess.Popen(
            with_parent_death_signal(command), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "Partner":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def ask(self, question: Any) -> Any:
        self.tell(question)
        return self.answer()

    def tell(self, question: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the other process ended"
        return json.loads(line)


@dataclass
class Work:
    """What the tenant who works noticed in some time.

    Attributes:
        clicks: Seconds that each click took, over gRPC; there is at least one.
        others: Seconds of calls of other kinds: through the gateway, and new images.
        failed: How often calls failed, by kind and reason.
        wrong: Masks that were not the right ones.
    """

    clicks: list[float]
    others: list[float]
    failed: Counter[str]
    wrong: int

    @property
    def slowest_s(self) -> float:
        return max([*self.clicks, *self.others], default=0)

    def p99(self) -> float:
        """The 99th percentile of the clicks; of fewer than 200, the slowest but one."""
        ordered = sorted(self.clicks)
        return ordered[max(0, min(len(ordered) - 2, int(len(ordered) * 0.99)))]

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.clicks + other.clicks,
            self.others + other.others,
            self.failed + other.failed,
            self.wrong + other.wrong,
        )


class Person:
    """The tenant who works: clicks through both ways, and embeds new images, all the time."""

    def __init__(self, partner: Partner) -> None:
        self._partner = partner

    def since(self) -> Work:
        """Returns what was noticed since the last time, when the calls that are under way have ended."""
        told = self._partner.ask("since")
        return Work(told["clicks"], told["others"], Counter(told["failed"]), told["wrong"])


class Memory:
    """The most memory that servers took, with their child processes, looked at every 20 ms."""

    def __init__(self, servers: dict[str, Server]) -> None:
        self._servers = servers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.most = dict.fromkeys(servers, 0)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def restart(self) -> dict[str, int]:
        """Forgets the most until now. Returns what is taken now, in bytes."""
        now = {name: family_bytes(server.pid) for name, server in self._servers.items()}
        self.most = dict(now)
        return now

    def grown(self, before: dict[str, int]) -> tuple[dict[str, int], dict[str, int]]:
        """Returns the most that each server took since `restart`, and by how much that is more than before, in MiB."""
        most = dict(self.most)
        return (
            {name: count >> 20 for name, count in most.items()},
            {name: (most[name] - before[name]) >> 20 for name in most},
        )

    def _look(self) -> None:
        while not self._stop.wait(0.02):
            most = self.most  # `restart` makes another
            for name, server in self._servers.items():
                if server.lives:
                    most[name] = max(most[name], family_bytes(server.pid))


def family_bytes(pid: int) -> int:
    """Returns the memory that a process and its descendants do not share with files."""
    total = 0
    with contextlib.suppress(OSError):  # one that has just ended
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("RssAnon", "RssShmem")):
                total += int(line.split()[1]) << 10
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                total += family_bytes(int(child))
    return total


def settled(lab: Lab, person: Person, seconds: float) -> Work:
    """Lets the lab rest. Returns what the tenant who works noticed meanwhile."""
    person.since()
    time.sleep(seconds)
    assert not lab.dead()
    assert ready(f"http://{lab.gateway.address}/")
    return person.since()
