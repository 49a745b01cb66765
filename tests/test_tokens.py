"""Who may do what, over real servers."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import small
from conftest import free_port, running, store_server, wait_until
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from maskwire import AsyncClient, Client, ImageNotFound, NotAllowed, NotAuthenticated, Overloaded
from maskwire.cli.status import health
from maskwire.cli.up import _store_program
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc, encoder_pb2, encoder_pb2_grpc, types_pb2
from maskwire_core import tokens, tokens_cli
from maskwire_core.callers import Caller
from maskwire_core.limits import Bucket
from maskwire_core.tokens import RIGHTS, Token, TokenError, Tokens
from typer.testing import CliRunner
from wire import details, failing, frames, picture

PASSWORD = "a-password-of-the-store"
NOBODY = ("UNAUTHENTICATED", "TOKEN_INVALID", "")
MISSING = ("NOT_FOUND", "IMAGE_NOT_FOUND", "image_id")
POINT = types_pb2.Prompt(points=[types_pb2.Point(x_px=5, y_px=5)])


@dataclass
class Guarded:
    """An encoder and a decoder that ask for tokens, and log all they can."""

    encoder: str
    decoder: str
    file: Path
    logs: list[Path]
    redis_url: str
    issued: list[str] = field(default_factory=list)

    def token(self, namespace: str = "acme", **fields: Any) -> str:
        """A new token, which the servers know when this returns."""
        fields = {"namespaces": [namespace], "rights": list(RIGHTS), **fields}
        text, entry = tokens.issue(**fields)
        tokens.change(self.file, lambda entries: [*entries, entry])
        self.issued.append(text)
        for address in (self.encoder, self.decoder):
            wait_until(lambda address=address: self.knows(address, text), 10)  # type: ignore[misc]
        return text

    def knows(self, address: str, text: str) -> bool:
        with grpc.insecure_channel(address) as channel:
            kind, name = (encoder_pb2_grpc.EncoderServiceStub(channel).ListModels, "encoder")
            if address == self.decoder:
                kind, name = decoder_pb2_grpc.DecoderServiceStub(channel).Segment, "decoder"
            request = encoder_pb2.ListModelsRequest() if name == "encoder" else decoder_pb2.SegmentRequest()
            try:
                kind(request, metadata=bearer(text), timeout=10)
            except grpc.RpcError as error:
                return error.code() != grpc.StatusCode.UNAUTHENTICATED
            return True

    def client(self, text: str | None, **arguments: Any) -> Client:
        return Client(self.encoder, self.decoder, token=text, **arguments)


def bearer(text: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {text}"),)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    chosen = small.options(folder)
    file = folder / "tokens.json"
    tokens.change(file, lambda entries: entries)
    ports, logs = (free_port(), free_port()), [folder / "encoder.log", folder / "decoder.log"]
    with store_server(_store_program(), "--requirepass", PASSWORD) as url:
        url = url.replace("redis://", f"redis://:{PASSWORD}@")
        environment = {"MASKWIRE_REDIS_URL": url, "MASKWIRE_TOKENS": str(file), "MASKWIRE_LOG_LEVEL": "DEBUG"}
        encoder = [word for name, value in chosen.items() for word in (f"--{name}", value)]
        commands = [("maskwire_encoder", [*encoder, "--cache", str(folder)]), ("maskwire_decoder", [])]
        with open(logs[0], "wb") as first, open(logs[1], "wb") as second:
            processes = [
                running([sys.executable, "-m", package, "--port", str(port), *words], environment, stderr=log)
                for (package, words), port, log in zip(commands, ports, (first, second), strict=True)
            ]
            addresses = [f"127.0.0.1:{port}" for port in ports]
            with processes[0] as one, processes[1] as two:
                for address, process in zip(addresses, (one, two), strict=True):
                    wait_until(lambda address=address: health(address) == "SERVING", process=process)  # type: ignore[misc]
                yield Guarded(*addresses, file, logs, url)


@pytest.fixture
def encoder(guarded: Guarded) -> Iterator[Any]:
    with grpc.insecure_channel(guarded.encoder) as channel:
        yield encoder_pb2_grpc.EncoderServiceStub(channel)


@pytest.fixture
def decoder(guarded: Guarded) -> Iterator[Any]:
    with grpc.insecure_channel(guarded.decoder) as channel:
        yield decoder_pb2_grpc.DecoderServiceStub(channel)


def test_without_a_valid_token_nothing_is_answered(guarded: Guarded, encoder: Any, decoder: Any) -> None:
    text = guarded.token()
    name, secret = text.split("_", 2)[1:]
    wrong = [
        (),
        bearer(""),
        bearer("x"),
        bearer(text[:-1]),
        bearer(f"{text}x"),
        bearer(f"mw_000000000000_{secret}"),
        bearer(f"mw_{name}_"),
        bearer(tokens.read(guarded.file)[0].sha256),
        (("authorization", text),),
        (("authorization", f"Basic {text}"),),
    ]
    image, segment = encoder_pb2.GetImageRequest(image_id="x"), decoder_pb2.SegmentRequest(image_id="x")
    stream = [decoder_pb2.SegmentStreamRequest()]
    calls = [
        lambda metadata: encoder.GetImage(image, metadata=metadata),
        lambda metadata: encoder.EncodeImage(frames(picture(1)), metadata=metadata),
        lambda metadata: list(encoder.EncodeImages(iter(()), metadata=metadata)),
        lambda metadata: encoder.ListModels(encoder_pb2.ListModelsRequest(), metadata=metadata),
        lambda metadata: decoder.Segment(segment, metadata=metadata),
        lambda metadata: list(decoder.SegmentStream(iter(stream), metadata=metadata)),
        lambda metadata: list(decoder.GenerateMasks(decoder_pb2.GenerateMasksRequest(), metadata=metadata)),
    ]
    for call in calls:
        assert failing(lambda call=call: call(())) == NOBODY
    for metadata in wrong:
        assert failing(lambda metadata=metadata: calls[0](metadata)) == NOBODY
        assert failing(lambda metadata=metadata: calls[4](metadata)) == NOBODY
    assert failing(lambda: calls[0](bearer(text))) == MISSING
    with guarded.client("wrong") as client, pytest.raises(NotAuthenticated, match="no valid token"):
        client.embed(picture(1))


def test_health_is_open_and_reflection_off(guarded: Guarded) -> None:
    for address in (guarded.encoder, guarded.decoder):
        assert health(address) == "SERVING"
        with grpc.insecure_channel(address) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            for metadata in ((), bearer(guarded.token())):
                with pytest.raises(grpc.RpcError) as caught:
                    list(stub.ServerReflectionInfo(iter([request]), metadata=metadata))
                assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_each_method_needs_its_right(guarded: Guarded, encoder: Any, decoder: Any) -> None:
    data = picture(2)
    calls = {
        "encode": lambda metadata: encoder.EncodeImage(frames(data, image_id="two"), metadata=metadata),
        "read": lambda metadata: encoder.GetImage(encoder_pb2.GetImageRequest(image_id="two"), metadata=metadata),
        "segment": lambda metadata: decoder.Segment(
            decoder_pb2.SegmentRequest(image_id="two", prompts=[POINT]), metadata=metadata
        ),
        "stats": lambda metadata: encoder.GetLoad(encoder_pb2.GetLoadRequest(), metadata=metadata),
        "delete": lambda metadata: encoder.DeleteImage(
            encoder_pb2.DeleteImageRequest(image_id="two"), metadata=metadata
        ),
    }
    only = {right: bearer(guarded.token(rights=[right])) for right in RIGHTS}
    for needed, call in calls.items():
        for right, metadata in only.items():
            if right == needed:  # the first of all embeds what the others are about
                call(metadata)
            else:
                expected = ("PERMISSION_DENIED", "RIGHT_MISSING", "")
                assert failing(lambda call=call, metadata=metadata: call(metadata)) == expected
    with guarded.client(guarded.token(rights=["read"])) as client, pytest.raises(NotAllowed, match="right to encode"):
        client.embed(data)


def test_a_foreign_image_is_as_one_that_is_not_there(guarded: Guarded, encoder: Any, decoder: Any) -> None:
    ours, theirs = bearer(guarded.token("acme")), bearer(guarded.token("other"))
    data = picture(3)
    stored = encoder.EncodeImage(frames(data, image_id="secret"), metadata=ours).image
    assert stored.namespace == "acme"  # the token's own, where none is named
    assert encoder.EncodeImage(frames(data, image_id="secret", namespace="acme"), metadata=ours).cached

    def answers(image_id: str, content_key: str = "") -> list[object]:
        """All that the other can ask of a name in our namespace, word for word."""
        told: list[object] = []
        fields = {"image_id": image_id, "namespace": "acme"}
        segment = decoder_pb2.SegmentRequest(**fields, content_key=content_key, prompts=[POINT])
        stream = decoder_pb2.SegmentStreamRequest(
            set_image=decoder_pb2.SetImage(**fields, content_key=content_key), request_id="1"
        )
        generate = decoder_pb2.GenerateMasksRequest(**fields, content_key=content_key)
        for call in (
            lambda: encoder.GetImage(encoder_pb2.GetImageRequest(**fields), metadata=theirs),
            lambda: decoder.Segment(segment, metadata=theirs),
            lambda: list(decoder.GenerateMasks(generate, metadata=theirs)),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            told += [details(caught.value), caught.value.details()]  # type: ignore[attr-defined]
        told += list(decoder.SegmentStream(iter([stream]), metadata=theirs))
        delete = encoder_pb2.DeleteImageRequest(**fields, delete_embedding=True)
        told.append(encoder.DeleteImage(delete, metadata=theirs))
        return told

    foreign, missing = answers("secret"), answers("nobody")
    assert [str(each).replace("secret", "nobody") for each in foreign] == list(map(str, missing))
    assert foreign[0] == MISSING
    # Nor by its content key, also while it is in the decoder's memory.
    decoder.Segment(decoder_pb2.SegmentRequest(image_id="secret", prompts=[POINT]), metadata=ours)
    other_key = "0" * 64
    assert list(map(str, answers("secret", stored.content_key))) == list(map(str, answers("secret", other_key)))
    # Their own namespace has neither the name nor the embedding; and they cannot store in ours.
    assert failing(lambda: encoder.GetImage(encoder_pb2.GetImageRequest(image_id="secret"), metadata=theirs)) == MISSING
    denied = ("PERMISSION_DENIED", "NAMESPACE_DENIED", "namespace")
    assert failing(lambda: encoder.EncodeImage(frames(data, namespace="acme"), metadata=theirs)) == denied
    assert not encoder.EncodeImage(frames(data, image_id="secret"), metadata=theirs).cached
    # A token for every namespace.
    every = bearer(guarded.token("*"))
    found = encoder.GetImage(encoder_pb2.GetImageRequest(image_id="secret", namespace="acme"), metadata=every)
    assert found.image.content_key == stored.content_key


def test_issued_names_cannot_be_guessed(guarded: Guarded, encoder: Any) -> None:
    metadata = bearer(guarded.token())
    data = picture(4)
    names = {encoder.EncodeImage(frames(data), metadata=metadata).image.image_id for _ in range(50)}
    assert len(names) == 50
    assert all(len(name) >= 22 for name in names)
    some = next(iter(names))
    for forged in (some[:-1], some + "A", some.swapcase(), "img_" + "A" * 22):
        request = encoder_pb2.GetImageRequest(image_id=forged)
        assert failing(lambda request=request: encoder.GetImage(request, metadata=metadata)) == MISSING


@pytest.mark.parametrize("how", ["revoked", "expired", "narrowed"])
def test_open_calls_end_with_their_token(guarded: Guarded, decoder: Any, encoder: Any, how: str) -> None:
    ends_at = datetime.now(UTC) + timedelta(seconds=6)
    text = guarded.token(**({"expires_at": ends_at} if how == "expired" else {}))
    staying = guarded.token()
    name = text.split("_")[1]
    encoder.EncodeImage(frames(picture(5), image_id="five"), metadata=bearer(text))
    closed = threading.Event()

    def requests() -> Iterator[decoder_pb2.SegmentStreamRequest]:
        yield decoder_pb2.SegmentStreamRequest(request_id="1", set_image=decoder_pb2.SetImage(image_id="five"))
        closed.wait(60)

    def uploads() -> Iterator[encoder_pb2.EncodeImagesRequest]:
        closed.wait(60)
        yield from ()

    streams = {token: decoder.SegmentStream(requests(), metadata=bearer(token)) for token in (text, staying)}
    upload = encoder.EncodeImages(uploads(), metadata=bearer(text))
    for stream in streams.values():
        assert next(stream).WhichOneof("outcome") == "image_ready"
    started = time.monotonic()
    if how == "revoked":
        CliRunner().invoke(tokens_cli.app, ["revoke", name, "--tokens", str(guarded.file)], catch_exceptions=False)
    elif how == "narrowed":
        tokens.change(
            guarded.file,
            lambda entries: [
                each.model_copy(update={"rights": frozenset({"read"})}) if each.id == name else each for each in entries
            ],
        )
    for stream in (streams[text], upload):
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert details(caught.value) == NOBODY
    assert time.monotonic() - started < (9 if how == "expired" else 4)
    segment = decoder_pb2.SegmentRequest(image_id="five", prompts=[POINT])
    expected = ("PERMISSION_DENIED", "RIGHT_MISSING", "") if how == "narrowed" else NOBODY
    assert failing(lambda: decoder.Segment(segment, metadata=bearer(text))) == expected
    decoder.Segment(segment, metadata=bearer(staying))
    closed.set()
    assert list(streams[staying]) == []


def test_a_broken_file_changes_nothing(guarded: Guarded, encoder: Any) -> None:
    text = guarded.token()
    good = guarded.file.read_bytes()
    models = encoder_pb2.ListModelsRequest()
    try:
        guarded.file.write_text('{"version": 1, "tokens": [{"id": "x"}]}')
        wait_until(lambda: "no file of tokens" in guarded.logs[0].read_text(), 10)
        encoder.ListModels(models, metadata=bearer(text))
        guarded.file.unlink()
        time.sleep(1.5)
        encoder.ListModels(models, metadata=bearer(text))
    finally:
        guarded.file.write_bytes(good)
    guarded.token()
    encoder.ListModels(models, metadata=bearer(text))


def test_limits(guarded: Guarded, encoder: Any, decoder: Any) -> None:
    limited = ("RESOURCE_EXHAUSTED", "RATE_LIMITED", "")
    large = picture(6, 300, 300)
    text = guarded.token(max_image_bytes=5000)
    too_large = ("RESOURCE_EXHAUSTED", "IMAGE_TOO_LARGE", "header.size_bytes")
    assert failing(lambda: encoder.EncodeImage(frames(large), metadata=bearer(text))) == too_large

    # Of requests: one more than fits, refused with the time to wait; another token is not held up.
    text = guarded.token(requests_per_s=0.5, burst_s=20)  # 10, of which `token` used one at each server
    models = encoder_pb2.ListModelsRequest()
    outcomes = []
    for _ in range(12):
        try:
            encoder.ListModels(models, metadata=bearer(text))
            outcomes.append("OK")
        except grpc.RpcError as error:
            outcomes.append(error.code().name)
            last = error
    assert outcomes.count("OK") in (9, 10, 11)
    assert details(last) == limited
    retry = RetryInfo()
    status = Status.FromString(dict(last.trailing_metadata())["grpc-status-details-bin"])
    assert any(each.Unpack(retry) for each in status.details)
    assert 0 < retry.retry_delay.ToMilliseconds() <= 2100
    encoder.ListModels(models, metadata=bearer(guarded.token()))
    # The prompts of a request count, and on a stream each request is refused by itself.
    many = decoder_pb2.SegmentRequest(image_id="six", prompts=[POINT] * 9)
    encoder.EncodeImage(frames(picture(7), image_id="six"), metadata=bearer(guarded.token()))
    text = guarded.token(requests_per_s=0.2, burst_s=50)
    decoder.Segment(many, metadata=bearer(text))
    assert failing(lambda: decoder.Segment(many, metadata=bearer(text))) == limited
    text = guarded.token(requests_per_s=0.2, burst_s=50)
    first = decoder_pb2.SegmentStreamRequest(request_id="0", set_image=decoder_pb2.SetImage(image_id="six"))
    asked = decoder_pb2.StreamPrompts(prompts=[POINT])
    rest = [decoder_pb2.SegmentStreamRequest(request_id=str(n), segment=asked) for n in range(1, 14)]
    answers = list(decoder.SegmentStream(iter([first, *rest]), metadata=bearer(text)))
    kinds = [answer.WhichOneof("outcome") for answer in answers]
    assert len(kinds) == 14
    assert kinds.count("result") in (6, 7, 8)
    assert kinds.count("error") == 13 - kinds.count("result")

    # Of encodes and bytes: what is stored already costs neither.
    text = guarded.token(encodes_per_s=0.05, burst_s=40)
    outcomes = []
    for number in (20, 21, 20, 21, 22):
        call = encoder.EncodeImage.with_call(frames(picture(number)), metadata=bearer(text)) if number < 22 else None
        outcomes.append(call[0].cached if call is not None else None)
    assert outcomes == [False, False, True, True, None]
    assert failing(lambda: encoder.EncodeImage(frames(picture(22)), metadata=bearer(text))) == limited
    text = guarded.token(bytes_per_s=1000)
    encoder.EncodeImage(frames(large), metadata=bearer(text))  # larger than the whole bucket, and then in debt
    assert failing(lambda: encoder.EncodeImage(frames(picture(23)), metadata=bearer(text))) == limited
    with guarded.client(text, retry_s=0) as client, pytest.raises(Overloaded, match="rate is used up") as caught:
        client.embed(picture(24))
    assert caught.value.retry_after_s


def test_a_quota_and_a_time_to_live_of_a_token(guarded: Guarded, encoder: Any) -> None:
    probe = encoder.EncodeImage(frames(picture(30)), metadata=bearer(guarded.token("probe"))).image
    text = guarded.token("small", quota_bytes=int(2.5 * probe.stored_bytes), ttl_s=50)
    stored = [
        encoder.EncodeImage(frames(picture(30 + n), image_id=f"q{n}"), metadata=bearer(text)).image for n in range(4)
    ]
    assert 0 < stored[-1].expires_at.ToSeconds() - time.time() <= 50
    gone = ("NOT_FOUND", "EMBEDDING_EXPIRED", "image_id")
    for number in (0, 1):
        request = encoder_pb2.GetImageRequest(image_id=f"q{number}")
        assert failing(lambda request=request: encoder.GetImage(request, metadata=bearer(text))) == gone
    for number in (2, 3):
        encoder.GetImage(encoder_pb2.GetImageRequest(image_id=f"q{number}"), metadata=bearer(text))
    text = guarded.token("small", quota_bytes=1000)
    too_small = ("RESOURCE_EXHAUSTED", "QUOTA_TOO_SMALL", "")
    assert failing(lambda: encoder.EncodeImage(frames(picture(39)), metadata=bearer(text))) == too_small


def test_the_client_sends_its_token_with_every_call(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKWIRE_TOKEN", guarded.token("client"))
    with guarded.client(None) as client:
        data = picture(8, 120, 90)
        assert client.embed(data, "eight").image_id == "eight"
        assert client.segment("eight", points=[(30, 20)]).score is not None
        with client.session("eight") as session:
            session.click(30, 20)
        assert client.everything("eight", points_per_side=2) is not None
        assert client.get("eight").image_id == "eight"
        assert client.models()
        assert client.delete("eight")

    async def gateway() -> None:
        """One client for two callers, whose images are apart."""
        one, two = guarded.token("one"), guarded.token("two")
        async with AsyncClient(guarded.encoder, guarded.decoder, token="") as shared:
            first, second = shared.acting_as(one), shared.acting_as(two)
            await first.embed(picture(9), "nine")
            await first.segment("nine", points=[(3, 3)])
            with pytest.raises(ImageNotFound):
                await second.segment("nine", points=[(3, 3)])
            with pytest.raises(NotAuthenticated):
                await shared.get("nine")
            await first.close()
            assert (await first.get("nine")).image_id == "nine"

    asyncio.run(gateway())


def test_no_secrets_in_logs(guarded: Guarded) -> None:
    """After all of the above, with every log level on."""
    text = guarded.token()
    with guarded.client(text) as client:
        client.embed(picture(40))
        client.segment(picture(41), points=[(1, 1)])
    with guarded.client(f"{text}x") as client, pytest.raises(NotAuthenticated):
        client.models()
    secrets = [PASSWORD, *(part for text in guarded.issued for part in (text, text.split("_", 2)[2]))]
    for log in guarded.logs:
        told = log.read_text()
        assert "serves on" in told
        assert not [secret for secret in secrets if secret in told]


# Without servers


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    words = ["-n", "acme", "-n", "labs", "-r", "read", "--expires", "30d", "--requests-per-s", "5", "--note", "Ann's"]
    command = [sys.executable, "-m", "maskwire.cli", "token", "new", *words, "--tokens", str(file)]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    text = made.stdout.strip()
    assert text not in file.read_text()
    assert text not in made.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    entry = Tokens(file).find(text)
    assert entry is not None
    assert (entry.namespaces, set(entry.rights), entry.requests_per_s) == (("acme", "labs"), {"read"}, 5)
    assert entry.expires_at is not None
    assert 29 < (entry.expires_at - datetime.now(UTC)).days + 1 <= 31
    assert Tokens(file).find(text + "x") is None

    def run(*more: str) -> tuple[int, str]:
        outcome = CliRunner().invoke(tokens_cli.app, [*more, "--tokens", str(file)])
        return outcome.exit_code, outcome.output

    assert entry.id in run("list")[1]
    (listed,) = json.loads(run("list", "--json")[1])["tokens"]
    assert listed["note"] == "Ann's"
    assert "sha256" not in listed
    for wrong in (
        ["-n", "a/b"],
        ["-n", "a", "-r", "fly"],
        ["-n", "a", "--expires", "soon"],
        ["-n", "a", "--burst-s", "-1"],
    ):
        code, told = run("new", *wrong)
        assert code == 1
        assert "error:" in told
    assert run("revoke", "nobody")[0] == 1
    assert run("revoke", entry.id)[0] == 0
    assert json.loads(run("list", "--json")[1]) == {"tokens": []}


def test_many_write_the_file_at_once(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"

    def add() -> None:
        for _ in range(10):
            new = [tokens.issue(namespaces=["a"], rights=["read"])[1]]
            tokens.change(file, lambda entries, new=new: entries + new)  # type: ignore[misc]

    threads = [threading.Thread(target=add) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each.id for each in tokens.read(file)}) == 60


@pytest.mark.parametrize("content", [None, "", "[]", '{"version": 2, "tokens": []}', '{"tokens": [{"id": "a"}]}'])
def test_a_server_does_not_start_without_its_tokens(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "tokens.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(TokenError, match=r"tokens\.json"):
        Tokens(file)


def test_a_bucket_keeps_its_rate() -> None:
    now = 0.0
    bucket = Bucket(10, 20, lambda: now)
    bucket.take(20)
    assert bucket.wait_s(1) == pytest.approx(0.1)
    now = 1.0
    assert bucket.wait_s(10) == 0
    assert bucket.wait_s(11) == pytest.approx(0.1)
    now = 100.0
    assert bucket.wait_s(1000) == 0  # more than it ever holds passes when it is full
    bucket.take(1000)
    assert bucket.wait_s(1) == pytest.approx(98.1)
    caller = Caller(Token(id="a", sha256="0" * 64, namespaces=("a",), rights=frozenset(), requests_per_s=1, burst_s=3))
    for _ in range(3):
        caller.charge(requests=1)
    with pytest.raises(Exception, match="rate is used up"):
        caller.charge(requests=1)
