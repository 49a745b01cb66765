"""Silent connections without end from one address: they keep nobody else from a server, and nobody who is there."""

import contextlib
import os
import resource
import socket
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from maskwire.cli.free_ports import free_port
from maskwire.cli.health import health
from maskwire_core.rpc.callers import Callers, name_of
from maskwire_core.runtime.open_files import raise_file_limit

from testing.processes import running, wait_until

FILES = 4096
"""That the server may have open."""
MARGIN = 500
"""That this process has open besides as many connections."""
CROWD, OTHER = "127.0.0.1", "127.0.0.2"
AT_ONCE_S = 0.9  # before a system asks again
ANSWER_S = 5.0


@dataclass
class Crowded:
    """A decoder that may have few files.

    Attributes:
        address: Where it listens, as host and port.
        health_address: The same of its port for health checks alone.
        authority: Who has issued its certificate; None if it does without TLS.
        ends: Whether connections beyond a share may be ended, because the system does not let them wait.
    """

    address: tuple[str, int]
    health_address: str
    authority: trustme.CA | None
    ends: bool

    @contextlib.contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        target, options = "{}:{}".format(*self.address), [("grpc.use_local_subchannel_pool", 1)]
        if self.authority is None:
            with grpc.insecure_channel(target, options) as channel:
                yield channel
        else:
            papers = grpc.ssl_channel_credentials(self.authority.cert_pem.bytes())
            with grpc.secure_channel(target, papers, options) as channel:
                yield channel

    def greet(self, source: str, within_s: float) -> None:
        """Opens a connection from an address, and waits until the server says something on it. Raises OSError if it is
        not opened in time, or the server says nothing."""
        with socket.create_connection(self.address, within_s, (source, 0)) as opened:
            opened.settimeout(ANSWER_S)
            if self.authority is None:
                assert opened.recv(9)  # the server's settings
            else:
                self.context().wrap_socket(opened, server_hostname=CROWD).close()

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["h2"])
        assert self.authority is not None
        self.authority.configure_trust(context)
        return context


@pytest.fixture(scope="module", autouse=True)
def files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if raise_file_limit(FILES + MARGIN) < FILES + MARGIN:
        pytest.skip(f"this system allows a process fewer than {FILES + MARGIN} files")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module", params=["plain", "TLS", "plain, without rights", "TLS, without rights"])
def crowded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowded]:
    port, health_port, authority = free_port(), free_port(), None
    words = [
        "--port",
        str(port),
        "--health-port",
        str(health_port),
        "--redis-url",
        f"redis://127.0.0.1:{free_port()}/0",
    ]
    if request.param.startswith("TLS"):
        authority, paper = trustme.CA(), tmp_path_factory.mktemp("papers") / "server.pem"
        authority.issue_cert(CROWD).private_key_and_cert_chain_pem.write_to_path(paper)
        words += ["--tls-cert", str(paper), "--tls-key", str(paper)]
    limited = ["sh", "-c", f'ulimit -n {FILES} && exec "$@"', "sh"]
    ends = request.param.endswith("without rights")
    if ends and os.geteuid() == 0:
        limited += ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    with running([*limited, sys.executable, "-m", "maskwire_decoder", *words]) as process:
        wait_until(lambda: health(f"{CROWD}:{health_port}") == "SERVING", process=process)
        yield Crowded((CROWD, port), f"{CROWD}:{health_port}", authority, ends or os.geteuid() != 0)


def check(channel: grpc.Channel) -> int:
    """Asks for the health of a server. Returns the answer."""
    stub = health_pb2_grpc.HealthStub(channel)
    return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_S).status)


def open_until_they_wait(crowded: Crowded, opened: contextlib.ExitStack) -> list[socket.socket]:
    """Opens connections, which are left open here, until they are as many as the server may have files, or a new one
    has to wait. Returns them."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" if crowded.authority is not None else b""  # a part of it
    crowd = list[socket.socket]()
    while len(crowd) < FILES:
        try:
            one = opened.enter_context(socket.create_connection(crowded.address, 0.5, (CROWD, 0)))
        except TimeoutError:
            break
        with contextlib.suppress(ConnectionError):  # it was ended
            one.sendall(hello)
        one.setblocking(False)
        crowd.append(one)
    return crowd


def is_open(connection: socket.socket) -> bool:
    """Whether the server has not ended a connection."""
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return True
    except ConnectionError:
        pass
    return False


def test_a_crowd_keeps_nobody_else_out(crowded: Crowded) -> None:
    with crowded.channel() as friend, contextlib.ExitStack() as opened:
        assert check(friend) == health_pb2.HealthCheckResponse.SERVING
        crowd = open_until_they_wait(crowded, opened)
        if len(crowd) == FILES:  # nobody had to wait
            assert crowded.ends
            wait_until(lambda: FILES // 4 < sum(map(is_open, crowd)) < FILES // 2, ANSWER_S)
        else:
            assert len(crowd) >= FILES // 3  # two thirds of half, and what came until it was seen
            assert all(map(is_open, crowd))
        crowded.greet(OTHER, AT_ONCE_S)
        # Whoever is there goes on, the crowd too, and health has a port of its own.
        assert check(friend) == health_pb2.HealthCheckResponse.SERVING
        assert health(crowded.health_address) == "SERVING"
        opened.close()
        crowded.greet(CROWD, 10)


@pytest.mark.parametrize(
    ("family", "host", "caller", "network"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1", "::/64"),
        (socket.AF_INET6, "::", "127.0.0.1", "127.0.0.1"),
    ],
    ids=("IPv4", "IPv6", "mapped"),
)
def test_callers_are_found(family: socket.AddressFamily, host: str, caller: str, network: str) -> None:
    dual = host == "::"
    with (
        contextlib.closing(Callers()) as callers,
        socket.create_server((host, 0), family=family, dualstack_ipv6=dual) as listener,
    ):
        port = listener.getsockname()[1]
        assert not callers.find(family, port)
        with socket.create_connection((caller, port)), socket.create_connection((caller, port)):
            # One that nobody has accepted yet is there, one that was closed here is not.
            with listener.accept()[0] as accepted:
                inode = os.fstat(accepted.fileno()).st_ino
                found = {name_of(each): sorted(inodes) for each, inodes in callers.find(family, port).items()}
                assert found == {network: [0, inode]}
            assert [len(each) for each in callers.find(family, port).values()] == [1]
