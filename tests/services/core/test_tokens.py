"""Who may do what, over real servers."""

import base64
import json
import queue
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import httpx
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from inference_sdk import InferenceConfiguration, InferenceHTTPClient
from inference_sdk.http.entities import ApiKeyTransport
from inference_sdk.http.errors import HTTPCallErrorError
from maskwire import NotAllowed, NotAuthenticated, Overloaded
from maskwire.cli.health import health
from maskwire.v1 import decoder_pb2, decoder_pb2_grpc, encoder_pb2, encoder_pb2_grpc, types_pb2
from maskwire_core.tenancy import cli, tokens
from maskwire_core.tenancy.tokens import RIGHTS
from typer.testing import CliRunner
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from testing.guarded import PASSWORD, Guarded, bearer, guarded_servers
from testing.processes import resident_bytes, wait_until
from testing.servers import running_gateway
from testing.time_bounds import assert_within
from testing.wire import MANY_CALLS, details, failing, frames, picture

NOBODY = ("UNAUTHENTICATED", "TOKEN_INVALID", "")
MISSING = ("NOT_FOUND", "IMAGE_NOT_FOUND", "image_id")
POINT = types_pb2.Prompt(points=[types_pb2.Point(x_px=5, y_px=5)])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded_servers(tmp_path_factory.mktemp("guarded")) as servers:
        yield servers


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
        bearer(tokens.read_tokens(guarded.file)[0].sha256),
        (("authorization", text),),
        (("authorization", f"Basic {text}"),),
    ]
    image, segment = encoder_pb2.GetImageRequest(image_id="x"), decoder_pb2.SegmentRequest(image_id="x")
    stream = [decoder_pb2.SegmentStreamRequest()]
    calls = [
        lambda metadata: encoder.GetImage(image, metadata=metadata),
        lambda metadata: encoder.EncodeImage(frames(picture(1)), metadata=metadata),
        lambda metadata: list(encoder.EncodeImages(iter(()), metadata=metadata)),
        lambda metadata: list(encoder.EmbedImage(frames(picture(1)), metadata=metadata)),
        lambda metadata: encoder.ListModels(encoder_pb2.ListModelsRequest(), metadata=metadata),
        lambda metadata: decoder.Segment(segment, metadata=metadata),
        lambda metadata: list(decoder.SegmentStream(iter(stream), metadata=metadata)),
        lambda metadata: list(decoder.GenerateMasks(decoder_pb2.GenerateMasksRequest(), metadata=metadata)),
        lambda metadata: list(decoder.GetEmbedding(decoder_pb2.GetEmbeddingRequest(), metadata=metadata)),
        lambda metadata: list(decoder.GetDecoder(decoder_pb2.GetDecoderRequest(), metadata=metadata)),
    ]
    for call in calls:
        assert failing(lambda call=call: call(())) == NOBODY
    for metadata in wrong:
        assert failing(lambda metadata=metadata: calls[0](metadata)) == NOBODY
        assert failing(lambda metadata=metadata: calls[5](metadata)) == NOBODY
    assert failing(lambda: calls[0](bearer(text))) == MISSING
    with guarded.client("wrong") as client, pytest.raises(NotAuthenticated, match="no valid token"):
        client.embed(picture(1))


def test_health_is_open_and_reflection_off(guarded: Guarded) -> None:
    for address in (guarded.encoder, guarded.decoder):
        assert health(address) == "SERVING"
        with grpc.insecure_channel(address) as channel:
            for version in ("v1", "v1alpha"):
                stub = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
                for metadata in ((), bearer(guarded.token())):
                    with pytest.raises(grpc.RpcError) as caught:
                        list(stub(iter([b"\x3a\0"]), metadata=metadata))  # list_services
                    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_each_method_needs_its_right(guarded: Guarded, encoder: Any, decoder: Any) -> None:
    data = picture(2)
    calls = [  # the first embeds what the others are about
        ("encode", lambda metadata: encoder.EncodeImage(frames(data, image_id="two"), metadata=metadata)),
        ("read", lambda metadata: encoder.GetImage(encoder_pb2.GetImageRequest(image_id="two"), metadata=metadata)),
        (
            "segment",
            lambda metadata: decoder.Segment(
                decoder_pb2.SegmentRequest(image_id="two", prompts=[POINT]), metadata=metadata
            ),
        ),
        (
            "segment",
            lambda metadata: list(
                decoder.GetEmbedding(decoder_pb2.GetEmbeddingRequest(image_id="two"), metadata=metadata)
            ),
        ),
        (
            "segment",
            lambda metadata: list(
                decoder.GetDecoder(
                    decoder_pb2.GetDecoderRequest(decoder=exported.decoder, graphs=["mask"]), metadata=metadata
                )
            ),
        ),
        ("stats", lambda metadata: encoder.GetLoad(encoder_pb2.GetLoadRequest(), metadata=metadata)),
        (
            "delete",
            lambda metadata: encoder.DeleteImage(encoder_pb2.DeleteImageRequest(image_id="two"), metadata=metadata),
        ),
    ]
    only = {right: bearer(guarded.token(rights=[right])) for right in RIGHTS}
    (exported,) = encoder.ListModels(encoder_pb2.ListModelsRequest(), metadata=only["read"]).models
    for needed, call in calls:
        for right, metadata in only.items():
            if right == needed:
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
        fetch = decoder_pb2.GetEmbeddingRequest(**fields, content_key=content_key)
        for call in (
            lambda: encoder.GetImage(encoder_pb2.GetImageRequest(**fields), metadata=theirs),
            lambda: decoder.Segment(segment, metadata=theirs),
            lambda: list(decoder.GenerateMasks(generate, metadata=theirs)),
            lambda: list(decoder.GetEmbedding(fetch, metadata=theirs)),
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
@pytest.mark.time_bound
def test_open_calls_end_with_their_token(guarded: Guarded, decoder: Any, encoder: Any, how: str) -> None:
    ends_at = datetime.now(UTC) + timedelta(seconds=3)
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
        CliRunner().invoke(cli.app, ["revoke", name, "--tokens", str(guarded.file)], catch_exceptions=False)
    elif how == "narrowed":
        tokens.change_tokens(
            guarded.file,
            lambda entries: [
                each.model_copy(update={"rights": frozenset({"read"})}) if each.id == name else each for each in entries
            ],
        )
    for stream in (streams[text], upload):
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert details(caught.value) == NOBODY
    took_s = time.monotonic() - started
    segment = decoder_pb2.SegmentRequest(image_id="five", prompts=[POINT])
    expected = ("PERMISSION_DENIED", "RIGHT_MISSING", "") if how == "narrowed" else NOBODY
    assert failing(lambda: decoder.Segment(segment, metadata=bearer(text))) == expected
    decoder.Segment(segment, metadata=bearer(staying))
    closed.set()
    assert list(streams[staying]) == []
    assert_within(took_s, 7 if how == "expired" else 4)


def test_a_broken_file_changes_nothing(guarded: Guarded, encoder: Any) -> None:
    text = guarded.token()
    good = guarded.file.read_bytes()
    models = encoder_pb2.ListModelsRequest()
    try:
        guarded.file.write_text('{"version": 1, "tokens": [{"id": "x"}]}')
        wait_until(lambda: "is not a tokens file" in guarded.logs[0].read_text(), 10)
        encoder.ListModels(models, metadata=bearer(text))
        guarded.file.unlink()
        wait_until(lambda: all("cannot read the tokens" in log.read_text() for log in guarded.logs), 10)
        encoder.ListModels(models, metadata=bearer(text))
    finally:
        guarded.file.write_bytes(good)
    guarded.token("new")
    encoder.ListModels(models, metadata=bearer(text))


def test_limits(guarded: Guarded, encoder: Any, decoder: Any) -> None:
    limited = ("RESOURCE_EXHAUSTED", "RATE_LIMITED", "")
    large = picture(6, 300, 300)
    text = guarded.token(max_image_bytes=5000)
    too_large = ("RESOURCE_EXHAUSTED", "IMAGE_TOO_LARGE", "image")
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


def test_every_decode_of_automatic_masks_counts(guarded: Guarded, encoder: Any, decoder: Any) -> None:
    encoder.EncodeImage(frames(picture(8), image_id="eight"), metadata=bearer(guarded.token()))
    grid = decoder_pb2.PointGrid(points=[0.5, 0.5])
    generate = decoder_pb2.GenerateMasksRequest(image_id="eight", grid=grid, use_m2m=True)
    text = guarded.token(requests_per_s=0.1, burst_s=100)  # 10, of which `token` used one
    list(decoder.GenerateMasks(generate, metadata=bearer(text)))  # a call, a click, and its three masks again
    limited = ("RESOURCE_EXHAUSTED", "RATE_LIMITED", "")
    assert failing(lambda: list(decoder.GenerateMasks(generate, metadata=bearer(text)))) == limited


def test_acknowledging_masks_is_free_and_anything_else_counts(guarded: Guarded, encoder: Any, decoder: Any) -> None:
    encoder.EncodeImage(frames(picture(8), image_id="eight"), metadata=bearer(guarded.token()))
    set_image = decoder_pb2.SegmentStreamRequest(set_image=decoder_pb2.SetImage(image_id="eight"))
    click = decoder_pb2.SegmentStreamRequest(request_id="click", segment={"prompts": [POINT]})

    def seen(masks: int) -> decoder_pb2.SegmentStreamRequest:
        return decoder_pb2.SegmentStreamRequest(masks_seen=masks)

    def outcomes(*requests: decoder_pb2.SegmentStreamRequest) -> list[str]:
        """Sends each after a click's mask has been read, with as many requests a second as next to none."""
        text = guarded.token(requests_per_s=0.1, burst_s=100)  # 10, of which `token` used one
        waiting: queue.Queue[decoder_pb2.SegmentStreamRequest | None] = queue.Queue()
        stream = decoder.SegmentStream(iter(waiting.get, None), metadata=bearer(text))
        told = []
        for request in (set_image, click, *requests):
            waiting.put(request)
            if request.HasField("set_image") or request.HasField("segment"):
                told.append(next(stream).WhichOneof("outcome"))
        waiting.put(None)
        return told + [answer.WhichOneof("outcome") for answer in stream]

    # The call, set_image and seven clicks use up what there is.
    acknowledged = [message for masks in range(1, 7) for message in (seen(masks), click)]
    assert outcomes(*acknowledged, click) == ["image_ready", *["result"] * 7, "error"]
    for flood in ([seen(1)] * 20, [seen(0), seen(1)] * 10, [seen(100)] * 20):
        told = outcomes(*flood)
        assert told.count("error") in range(12, 16)


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


def test_the_gateway_passes_tokens_on(guarded: Guarded) -> None:
    """Encoders and decoders judge, whichever way the token came."""
    one, two = guarded.token(), guarded.token("other")
    data = picture(91, 60, 40)
    with running_gateway(guarded) as (address, _):

        def embed(token: str | None = None, **options: Any) -> httpx.Response:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            return httpx.post(f"{address}/v1/images?image_id=mine", content=data, headers=headers, **options)

        assert httpx.get(f"{address}/readyz").status_code == 200
        for refused in (
            embed(),
            embed("mw_no_token"),
            embed("none is like this"),
            httpx.get(f"{address}/v1/models"),
        ):
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
        assert embed(one).json()["image"]["namespace"] == "acme"
        assert embed(two).json()["image"]["namespace"] == "other"
        reader = guarded.token(rights=["read"])
        assert embed(reader).status_code == 403
        for token, status in ((one, 200), (reader, 200), (None, 401)):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            assert httpx.get(f"{address}/v1/images/mine", headers=headers).status_code == status

        # /sam2: the query goes before the header, and that before the body.
        image = {"type": "base64", "value": base64.b64encode(data).decode()}

        def old(query: str = "", header: str = "", body: str | None = None) -> int:
            headers = {"Authorization": f"Bearer {header}"} if header else {}
            sent = {"image": image, "api_key": body}
            return httpx.post(f"{address}/sam2/embed_image{query}", headers=headers, json=sent).status_code

        assert [old(f"?api_key={one}"), old(header=one), old(body=two)] == [200, 200, 200]
        assert [old(), old("?api_key=no", one, two), old(header="no", body=one)] == [401, 401, 401]

        url = f"{address.replace('http', 'ws')}/v1/stream"
        protocols: Any = ["maskwire.v1", f"maskwire.bearer.{one}"]
        with connect(url, subprotocols=protocols) as socket:
            assert socket.subprotocol == "maskwire.v1"
            socket.send(json.dumps({"request_id": "a", "set_image": {"image_id": "mine"}}))
            answer = json.loads(socket.recv())
            assert "error" not in answer, answer
        with pytest.raises(InvalidStatus) as rejected:
            connect(url, subprotocols=protocols[:1])
        assert rejected.value.response.status_code == 401


@pytest.mark.client("inference-sdk", "the same with a token: `api_key_transport` legacy, both, header")
def test_every_way_in_which_inference_sdk_sends_the_token(guarded: Guarded) -> None:
    image = base64.b64encode(picture(92, 60, 40)).decode()
    with running_gateway(guarded) as (address, _):
        for transport in ("legacy", "both", "header"):
            sdk = InferenceHTTPClient(api_url=address, api_key=guarded.token())
            sdk.configure(InferenceConfiguration(api_key_transport=ApiKeyTransport(transport)))
            found = sdk.sam2_segment_image(image, prompts=[{"points": [{"x": 9, "y": 9, "positive": True}]}])
            assert len(found["predictions"]) == 1

            def ids(models: Any) -> list[str]:
                return [model.model_id for model in models.models]

            assert ids(sdk.list_loaded_models()) == ["small"]
            assert ids(sdk.load_model("sam2/hiera_tiny")) == ["small", "sam2/hiera_tiny"]
            kept = [] if transport == "legacy" else ["small"]  # it sends none there
            assert ids(sdk.unload_model("sam2/hiera_tiny")) == ids(sdk.unload_all_models()) == kept
        stranger = InferenceHTTPClient(api_url=address, api_key="mw_no_token")
        for refused in (stranger.list_loaded_models, lambda: stranger.load_model("small")):
            with pytest.raises(HTTPCallErrorError, match="401"):
                refused()


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


# The last one: new connections from here wait for seconds after this flood.
def test_nothing_is_received_of_a_stranger(guarded: Guarded) -> None:
    large = b"\x0a\x80\x80\xc0\x01" + bytes(3 << 20)  # image_id
    methods = {
        "/maskwire.v1.DecoderService/Segment": "UNAUTHENTICATED",
        "/maskwire.v1.DecoderService/GenerateMasks": "UNAUTHENTICATED",
        "/maskwire.v1.DecoderService/SegmentStream": "UNAUTHENTICATED",
        "/grpc.health.v1.Health/Check": "INVALID_ARGUMENT",
    }
    before = most = resident_bytes(guarded.decoder_pid)
    with grpc.insecure_channel(guarded.decoder, MANY_CALLS) as channel:
        calls = [(name, channel.unary_unary(name).future(large, timeout=60)) for name in methods for _ in range(40)]
        while not all(call.done() for _, call in calls):
            most = max(most, resident_bytes(guarded.decoder_pid))
            time.sleep(0.01)
    assert {(name, call.code().name) for name, call in calls} == set(methods.items())
    # 120 calls of 64 KiB each in their windows, and the health checks that are received at the same time.
    assert most - before < 80e6
