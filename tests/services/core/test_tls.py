"""TLS and mTLS, of the services and of the store, and the store's users."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis
import trustme
from maskwire import Client, InvalidRequest, NotAuthenticated, ServerUnavailable, Tls
from maskwire.cli.free_ports import free_port
from maskwire.cli.health import health
from maskwire.cli.local_store import store_program
from maskwire.v1 import encoder_pb2, encoder_pb2_grpc
from maskwire_core.errors import Unavailable
from maskwire_core.storage import cli
from maskwire_core.storage.clips import ClipStore
from maskwire_core.storage.store import Store
from maskwire_core.storage.tracks import TrackStore
from maskwire_core.tenancy import tokens
from typer.testing import CliRunner

from testing import small_model
from testing.paths import COFFEE, ROOT
from testing.processes import running, wait_until
from testing.warm import run_module, running_module
from testing.wire import picture


class Papers:
    """A certificate authority's files, a server's and a client's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.server = self.issue("server", "localhost", "127.0.0.1")
        self.client = self.issue("client", "somebody@example.org")

    def issue(self, name: str, *identities: str) -> tuple[Path, Path]:
        made = self.authority.issue_cert(*identities)
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert.write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
        made.private_key_pem.write_to_path(key)
        key.chmod(0o600)
        return cert, key

    @property
    def server_options(self) -> list[str]:
        return ["--tls-cert", str(self.server[0]), "--tls-key", str(self.server[1])]


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@contextlib.contextmanager
def service(package: str, redis_url: str, *options: str) -> Iterator[tuple[str, str]]:
    """A service with a port for health. Yields both addresses."""
    port, health_port = free_port(), free_port()
    ports = ("--port", str(port), "--health-port", str(health_port))
    with running_module(package, *ports, *options, environment={"MASKWIRE_REDIS_URL": redis_url}) as process:
        wait_until(lambda: health(f"127.0.0.1:{health_port}") == "SERVING", process=process)
        yield f"127.0.0.1:{port}", f"127.0.0.1:{health_port}"


def encoder_options(folder: Path) -> list[str]:
    words = [word for name, value in small_model.options(folder).items() for word in (f"--{name}", value)]
    return [*words, "--cache", str(folder)]


@pytest.fixture(scope="module")
def secured(papers: Papers, valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """An encoder with TLS and a decoder with mTLS, which also asks for tokens. Yields addresses and a token."""
    folder = tmp_path_factory.mktemp("secured")
    text, entry = tokens.issue(namespaces=["default"], rights=["segment"])
    tokens.change_tokens(folder / "tokens.json", lambda entries: [entry])
    both = [*papers.server_options, "--tls-client-ca", str(papers.ca), "--tokens", str(folder / "tokens.json")]
    with (
        service("maskwire_encoder", valkey, *papers.server_options, *encoder_options(folder)) as (encoder, _),
        service("maskwire_decoder", valkey, *both) as (decoder, _),
    ):
        yield encoder, decoder, text


def test_tls_and_mtls(papers: Papers, secured: tuple[str, str, str], tmp_path: Path) -> None:
    encoder, decoder, text = secured
    known, own = Tls(ca=papers.ca), Tls(papers.ca, *papers.client)
    data = picture(1)
    with Client(encoder, decoder, tls=own, token=text) as client:
        client.embed(data, "one")
        assert client.segment("one", points=[(5, 5)]).score is not None
        with client.session("one") as session:
            session.click(5, 5)
    with Client(encoder, decoder, tls=known, token=text, retry_s=0) as client:
        assert client.embed(data, "one").cached
        with pytest.raises(ServerUnavailable):  # the decoder wants a certificate
            client.segment("one", points=[(5, 5)])
    with Client(encoder, decoder, tls=own, token="", retry_s=0) as client, pytest.raises(NotAuthenticated):
        client.segment("one", points=[(5, 5)])
    other = Papers(tmp_path)
    for tls in (Tls(ca=other.ca), False, True):
        with Client(encoder, decoder, tls=tls, retry_s=0) as client, pytest.raises(ServerUnavailable):
            client.embed(data)
    stranger = Tls(papers.ca, *other.client)
    with Client(encoder, decoder, tls=stranger, token=text, retry_s=0) as client, pytest.raises(ServerUnavailable):
        client.segment("one", points=[(5, 5)])
    with pytest.raises(InvalidRequest, match="needs its key"):
        Client(tls=Tls(cert=papers.client[0]))
    with pytest.raises(InvalidRequest, match="cannot read"):
        Client(tls=Tls(ca=papers.folder / "none.pem"))


def test_the_environment_and_the_command_line(papers: Papers, secured: tuple[str, str, str]) -> None:
    encoder, _, _ = secured

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run_module("maskwire.cli", *words, environment=environment)

    shown = run("--tls-ca", str(papers.ca), "embed", str(COFFEE), "--encoder", encoder)
    assert "1 encoded" in shown.stdout or "1 stored already" in shown.stdout, shown
    shown = run("status", "encoder", "--encoder", encoder, MASKWIRE_TLS_CA=str(papers.ca))
    assert (shown.returncode, "small" in shown.stdout) == (0, True), shown
    assert "UNREACHABLE" in run("status", "encoder", "--encoder", encoder).stdout


def test_the_health_port_has_nothing_else(papers: Papers, valkey: str) -> None:
    with service("maskwire_decoder", valkey, *papers.server_options) as (_, probe):
        with grpc.insecure_channel(probe) as channel, pytest.raises(grpc.RpcError) as caught:
            encoder_pb2_grpc.EncoderServiceStub(channel).ListModels(encoder_pb2.ListModelsRequest())
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_renewed_certificate_is_served_without_a_restart(valkey: str, tmp_path: Path) -> None:
    papers = Papers(tmp_path)
    first, renewed = papers.ca.read_bytes(), trustme.CA()

    def answers(ca: bytes) -> bool:
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(ca)) as channel:
            try:
                grpc.channel_ready_future(channel).result(2)
            except grpc.FutureTimeoutError:
                return False
            return True

    with service("maskwire_decoder", valkey, *papers.server_options) as (address, _):
        assert answers(first)
        papers.server[1].write_text("half written")
        assert answers(first)
        papers.authority = renewed
        papers.issue("server", "localhost", "127.0.0.1")
        assert answers(renewed.cert_pem.bytes())
        assert not answers(first)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--tls-cert", "x.pem"], "both --tls-cert and --tls-key"),
        (["--tls-client-ca", "x.pem"], "both --tls-cert and --tls-key"),
        (["--tls-cert", "x.pem", "--tls-key", "x.key"], "cannot read {here}/x.pem"),
        (["--tokens", "x.json"], "cannot read the tokens in {here}/x.json"),
    ],
)
def test_wrong_settings_end_the_program(valkey: str, options: list[str], told: str, tmp_path: Path) -> None:
    ended = run_module("maskwire_decoder", "--port", "0", "--redis-url", valkey, *options, folder=tmp_path)
    assert ended.returncode == 1
    assert f"error: {told.format(here=tmp_path)}" in ended.stderr.replace("error: TLS needs ", "error: ")


# The store


def rules() -> dict[str, str]:
    """The users as docs/how-to/secure.md has them, by name."""
    lines = [line.strip() for line in (ROOT / "docs" / "how-to" / "secure.md").read_text().splitlines()]
    return {line.split()[1]: line for line in lines if line.startswith("user maskwire-")}


@contextlib.contextmanager
def locked_store(program: str, papers: Papers, encrypted: bool) -> Iterator[Any]:
    """A store with the documented users, that speaks TLS alone if it can. Yields its URL by user and password."""
    port = free_port()
    acl = papers.folder / "users.acl"
    lines = ["user default on >admin ~* &* +@all"]
    lines += [line.replace("PASSWORD", f"of-{name}") for name, line in rules().items()]
    acl.write_text("\n".join(lines) + "\n")
    cert, key = papers.server
    options = ["--port", str(port)]
    if encrypted:
        options = ["--port", "0", "--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key)]
        options += ["--tls-ca-cert-file", str(papers.ca), "--tls-auth-clients", "no"]
    options += ["--aclfile", str(acl), "--save", ""]

    def url(user: str, password: str) -> str:
        protocol, query = ("rediss", f"?ssl_ca_certs={papers.ca}") if encrypted else ("redis", "")
        return f"{protocol}://{user}:{password}@localhost:{port}/0{query}"

    with running([program, *options]) as process:

        def answers() -> bool:
            with contextlib.suppress(redis.RedisError), redis.Redis.from_url(url("default", "admin")) as client:
                return bool(client.ping())
            return False

        wait_until(answers, 20, process=process)
        yield url


def give(store: Store, command: Callable[[redis.Redis], object]) -> None:
    with store.connections.commands() as client:
        command(client)


def store_videos(store: Store) -> None:
    """What a tracker does in the store."""
    tracks, clips = TrackStore(store, 1000, 10, 100), ClipStore(store, 1000, 10, 100)
    for track in ("kept", "deleted"):
        tracks.open("default", track, "me")
        assert tracks.write("default", track, "me", b"meta", {b"record": b"x"}, [b"gone"], 1)
    assert tracks.peek("default", "kept") == (1, b"meta")
    assert tracks.read("default", "kept", [b"record"]) == {b"record": b"x"}
    tracks.delete("default", "deleted")
    for clip in ("kept", "deleted"):
        upload = clips.upload("default", clip)
        upload.add(b"frame")
        upload.complete(clips.meta("default", clip) or b"meta", None)
        assert clips.frame("default", clip, upload.name, 0) == b"frame"
        clips.keep("default", clip, upload.name, 5)
    clips.delete("default", "deleted", upload.name)
    clips.upload("default", "abandoned").abandon()
    assert store.get_embedding("default", "0" * 64) is None
    store.close()


@pytest.fixture(params=["valkey", "redis"])
def locked(request: pytest.FixtureRequest, papers: Papers) -> Iterator[Any]:
    program = store_program() if request.param == "valkey" else shutil.which("redis-server")
    if program is None:
        message = "no redis-server on PATH; scripts/test installs it where it can"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with locked_store(program, papers, encrypted=request.param == "redis") as url:  # Valkey's wheel has no TLS
        yield url


def test_the_documented_users_can_do_their_work_and_no_more(locked: Any, tmp_path: Path) -> None:
    """Encoder and decoder, each as its own user, with a quota, saved logits and damaged values."""
    urls = {name: locked(name, f"of-{name}") for name in rules()}
    options = [*encoder_options(tmp_path), "--quota-bytes", "100000000"]
    with (
        service("maskwire_encoder", urls["maskwire-encoder"], *options) as (encoder, _),
        service("maskwire_decoder", urls["maskwire-decoder"]) as (decoder, _),
        redis.Redis.from_url(locked("default", "admin")) as admin,
        Client(encoder, decoder) as client,
    ):
        admin.config_set("acllog-max-len", 128)
        data = picture(1)
        stored = client.embed(data, "one")
        assert client.embed(data, "one").cached
        client.get("one")
        client.segment("one", points=[(5, 5)], save_logits=True)
        assert client.segment("one", points=[(5, 5), (9, 9)], load_logits=True).score is not None
        # A damaged embedding: the decoder may delete it, and says that it is gone.
        other = client.embed(picture(2), "two")
        name = f"maskwire:embedding:{{default/{other.content_key}}}"
        admin.setrange(name, 3000, b"damage")
        assert client.segment("two", points=[(5, 5)]).score is not None  # embedded again by the client
        assert client.embed(picture(2), "two").cached
        client.delete("one", embedding=True)
        assert not admin.exists(f"maskwire:embedding:{{default/{stored.content_key}}}")
        store_videos(Store(urls["maskwire-tracker"]))
        denied = [entry for entry in admin.acl_log() if entry["object"] != "client|setinfo"]
        assert denied == []

        for words, told in ((["stats"], "default"), (["purge", "--all", "--yes"], "1 embeddings")):
            shown = CliRunner().invoke(cli.app, [*words, "--redis-url", urls["maskwire-admin"]])
            assert (shown.exit_code, told in shown.output) == (0, True), shown.output
        assert [entry for entry in admin.acl_log() if entry["object"] != "client|setinfo"] == []
        reader = Store(urls["maskwire-decoder"])
        for write in (
            lambda: reader.put_embedding("default", "a" * 64, b"x", 10),
            lambda: reader.set_alias("default", "one", "a" * 64, 10),
            lambda: give(reader, lambda own: own.set(f"maskwire:decoder:{'0' * 64}", b"x")),
            lambda: give(reader, lambda own: own.hset("maskwire:sizes:{default}", "total", 0)),
            lambda: give(reader, lambda own: own.keys("*")),
            lambda: give(reader, lambda own: own.config_get("*")),
        ):
            with pytest.raises(Unavailable) as caught:
                write()
            assert caught.value.reason == "STORE_REFUSES"
        reader.close()
        tracker = Store(urls["maskwire-tracker"])
        with pytest.raises(Unavailable) as caught:
            tracker.put_embedding("default", "a" * 64, b"x", 10)
        assert caught.value.reason == "STORE_REFUSES"
        tracker.close()
        writer = Store(urls["maskwire-encoder"])
        for reach in (lambda own: own.set("others:key", 1), lambda own: own.flushall(), lambda own: own.acl_list()):
            with pytest.raises(Unavailable):
                give(writer, reach)
        writer.close()
    plain = Store(locked("maskwire-decoder", "wrong"))
    with pytest.raises(Unavailable):
        plain.ping()
    plain.close()
