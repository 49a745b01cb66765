"""What servers tell of themselves: metrics, traces, logs; over real servers."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import maskwire
import numpy as np
import pytest
from maskwire import Client
from maskwire.cli.free_ports import free_port
from maskwire.cli.health import health
from prometheus_client.parser import text_string_to_metric_families

from testing.processes import wait_until
from testing.small_model import options as small_options
from testing.trace_collector import Collector, Span
from testing.warm import run_module, running_module


def scrape(port: int) -> dict[str, float]:
    """Values by "name{label=value,...}"."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text = response.read().decode()
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@dataclass
class Observed:
    client: Client
    encoder: str
    decoder: str
    encoder_metrics: int
    decoder_metrics: int
    collector: Collector
    folder: Path

    def logs(self, server: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (self.folder / server).read_text().splitlines()]


@pytest.fixture(scope="module")
def observed(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """An encoder of a small model and a decoder, that count, trace and log as JSON."""
    folder = tmp_path_factory.mktemp("observed")
    collector = Collector()
    ports = [free_port() for _ in range(4)]
    common = ["--redis-url", valkey, "--trace-to", collector.address, "--log-format", "json", "--log-level", "DEBUG"]
    small = [part for name, value in small_options(folder).items() for part in (f"--{name}", value)]
    commands = [
        ["maskwire_encoder", "--port", str(ports[0]), "--metrics-port", str(ports[1]), "--cache", str(folder), *small],
        ["maskwire_decoder", "--port", str(ports[2]), "--metrics-port", str(ports[3]), "--workers", "1"],
    ]
    with (
        running_module(*commands[0], *common, stderr=folder / "encoder") as encoder,
        running_module(*commands[1], *common, stderr=folder / "decoder") as decoder,
    ):
        for port, process in ((ports[0], encoder), (ports[2], decoder)):
            wait_until(lambda port=port: _serves(port), process=process)
        addresses = f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[2]}"
        with Client(*addresses, namespace="observed") as client:
            yield Observed(client, *addresses, ports[1], ports[3], collector, folder)
    collector.close()


def _serves(port: int) -> bool:
    return health(f"127.0.0.1:{port}") == "SERVING"


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (90, 120, 3), np.uint8)


def changed(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}


def test_metrics_count_what_happened(observed: Observed) -> None:
    client = observed.client
    before = scrape(observed.encoder_metrics), scrape(observed.decoder_metrics)
    for seed in (1, 2, 1):
        client.embed(picture(seed), image_id=f"counted {seed}")
    for _ in range(3):
        client.segment(image_id="counted 2", points=[(5, 5)])
    with pytest.raises(maskwire.ImageNotFound):
        client.segment(image_id="nobody's", points=[(5, 5)])
    with pytest.raises(maskwire.InvalidRequest):
        client.segment(image_id="counted 2", points=[(5000, 5)])

    encoder = changed(before[0], scrape(observed.encoder_metrics))
    ours = "grpc_service=maskwire.v1.EncoderService grpc_type=client_stream"
    assert encoder["maskwire_images_total found=encoded"] == 2
    assert (
        encoder.get("maskwire_images_total found=cached", 0) == 1
        or encoder[f"grpc_server_started_total grpc_method=EncodeImage {ours}"] == 2
    )  # the client remembers what it has embedded
    assert encoder[f"grpc_server_handled_total grpc_code=OK grpc_method=EncodeImage {ours}"] >= 2
    assert encoder["maskwire_batch_size_sum"] == 2
    for stage in ("read", "encode", "store"):
        assert encoder[f"maskwire_stage_seconds_count stage={stage}"] == 2
    assert encoder["maskwire_stage_seconds_sum stage=encode"] > 0
    assert encoder["maskwire_device_busy_seconds_total device=cpu"] > 0
    stored = sum(client.get(f"counted {seed}").stored_bytes for seed in (1, 2))
    assert encoder["maskwire_store_bytes_total direction=written"] == stored

    decoder = changed(before[1], scrape(observed.decoder_metrics))
    ours = "grpc_method=Segment grpc_service=maskwire.v1.DecoderService grpc_type=unary"
    assert decoder[f"grpc_server_started_total {ours}"] == 5
    assert decoder[f"grpc_server_handled_total grpc_code=OK {ours}"] == 3
    assert decoder[f"grpc_server_handled_total grpc_code=NOT_FOUND {ours}"] == 1
    assert decoder[f"grpc_server_handled_total grpc_code=INVALID_ARGUMENT {ours}"] == 1
    assert decoder[f"grpc_server_handling_seconds_count {ours}"] == 5
    assert decoder["maskwire_images_total found=store"] == 1
    assert decoder["maskwire_images_total found=memory"] == 3
    assert decoder["maskwire_errors_total reason=IMAGE_NOT_FOUND"] == 1
    assert decoder["maskwire_stage_seconds_count stage=decode"] == 3
    assert decoder["maskwire_stage_seconds_count stage=mask"] == 3
    assert decoder["maskwire_store_bytes_total direction=read"] == client.get("counted 2").stored_bytes
    assert decoder["maskwire_cache_images"] == 1
    now = scrape(observed.decoder_metrics)
    assert now["maskwire_queue_waiting urgency=interactive"] == 0
    assert now["maskwire_workers"] == 1


def test_metrics_count_the_stages_of_automatic_masks(observed: Observed) -> None:
    observed.client.embed(picture(2), image_id="gridded")
    before = scrape(observed.decoder_metrics)
    observed.client.everything("gridded", points_per_side=3)
    decoder = changed(before, scrape(observed.decoder_metrics))
    assert decoder["maskwire_stage_seconds_count stage=decode"] == 9
    assert decoder["maskwire_stage_seconds_count stage=mask"] == 9


def test_metrics_count_answers_on_streams(observed: Observed) -> None:
    before = scrape(observed.decoder_metrics)
    with observed.client.session(picture(3)) as session:
        session.click(5, 5)
        session.click(6, 6)
    wait_until(
        lambda: any("grpc_server_handled_total" in name for name in changed(before, scrape(observed.decoder_metrics)))
    )
    decoder = changed(before, scrape(observed.decoder_metrics))
    assert decoder["maskwire_stream_answers_total outcome=image_ready"] == 1
    assert decoder["maskwire_stream_answers_total outcome=result"] == 2
    assert any("SegmentStream" in name and "grpc_type=bidi_stream" in name for name in decoder)


def test_queue_depth_rises_and_falls(observed: Observed) -> None:
    """What a cluster is scaled by."""
    name = "maskwire_queue_waiting urgency=bulk"
    embedding = observed.client.embed_many([picture(seed) for seed in range(100, 140)], bulk=True)
    seen = [scrape(observed.encoder_metrics)[name] for _ in embedding]
    assert max(seen) >= 5
    wait_until(lambda: scrape(observed.encoder_metrics)[name] == 0)


def test_traces_of_a_cold_and_a_warm_click(observed: Observed) -> None:
    # A process of its own: an application's tracing cannot be taken back, and would go on with all later tests.
    file = observed.folder / "traced.png"
    file.write_bytes(picture_file(7))
    arguments = [observed.collector.address, observed.encoder, observed.decoder, str(file)]
    assert run_module("testing.traced_application", *arguments).returncode == 0

    def roots() -> list[Span]:
        trees = [root for root in observed.collector.trees() if root.name in ("cold click", "warm click")]
        done = len(trees) == 2 and all("mask" in {span.name for _, span in root.walk()} for root in trees)
        return trees if done and "store" in {span.name for _, span in trees[0].walk()} else []

    wait_until(lambda: bool(roots()), 30)
    cold, warm = roots()
    for root in (cold, warm):
        assert len({span.trace for _, span in root.walk()}) == 1
        for _, span in root.walk():
            # A parent holds its children, which do not overlap; clocks of one machine, read to the millisecond.
            assert sum(child.took_ms for child in span.children) <= span.took_ms + 2
            for child in span.children:
                assert child.start_ms >= span.start_ms - 2
                assert child.start_ms + child.took_ms <= span.start_ms + span.took_ms + 2
    services = {name: {span.service for _, span in root.walk()} for name, root in (("cold", cold), ("warm", warm))}
    assert services["cold"] == {"application", "maskwire-encoder", "maskwire-decoder"}
    assert services["warm"] == {"application", "maskwire-decoder"}
    stages = [span.name for _, span in cold.walk()]
    for stage in ("embed", "read", "encode", "store", "fetch", "store: read embedding", "queue", "decode", "mask"):
        assert stage in stages
    assert "store: read embedding" not in [span.name for _, span in warm.walk()]


def picture_file(seed: int) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture(seed)).save(file, "PNG")
    return file.getvalue()


def test_logs_are_json_with_the_call_and_its_image(observed: Observed) -> None:
    client = observed.client
    client.embed(picture(8), image_id="logged ü")
    client.segment(image_id="logged ü", points=[(5, 5)])
    for server, method in (("encoder", "EncodeImage"), ("decoder", "Segment")):

        def found(server: str = server, method: str = method) -> list[dict[str, str]]:
            lines = observed.logs(server)
            return [line for line in lines if line.get("image_id") == "logged ü" and method in line["message"]]

        wait_until(lambda: bool(found()), 10)
        line = found()[-1]
        assert line["namespace"] == "observed"
        assert re.fullmatch("[0-9a-f]{16}", line["request_id"])
        assert line["level"] == "DEBUG"
        time.strptime(line["time"][:19], "%Y-%m-%dT%H:%M:%S")


def test_nothing_of_opentelemetry_is_loaded_unless_asked_for() -> None:
    # redis-py loads the interface for its own metrics, where OpenTelemetry is installed.
    servers = ("encoder", "decoder", "tracker", "gateway")
    modules = ", ".join(["maskwire", *(f"maskwire_{server}.__main__" for server in servers)])
    code = f"import {modules}, sys; print({{'opentelemetry.exporter', 'opentelemetry.sdk.trace'}} & {{*sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert run.stdout.strip() == "set()"


def test_a_metrics_port_in_use_ends_the_program(valkey: str, observed: Observed) -> None:
    port = str(observed.decoder_metrics)
    run = run_module("maskwire_decoder", "--port", "0", "--redis-url", valkey, "--metrics-port", port)
    assert run.returncode == 1
    assert "--metrics-port" in run.stderr
