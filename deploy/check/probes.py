"""What the running containers are tried for. Runs in the engine's network: python -m deploy.check.probes."""

import json
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import maskwire
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from deploy.check.engine import Engine
from deploy.check.picture import ask, draw

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "clients/web/maskwire_web/sample.jpg"
SERVERS = ("encoder", "decoder", "gateway", "envoy", "redis")
_POINT = [(300, 200)]


class Probes:
    """Each method is a trial; it raises AssertionError where a promise is not kept."""

    def __init__(self, engine: Engine, pictures: Sequence[str] = ()) -> None:
        self._engine = engine
        self._pictures = pictures

    def run(self) -> int:
        """Tries everything, and returns how much failed."""
        failures = 0
        for probe in (
            self.click_through_envoy,
            self.page_and_gateway,
            self.images_keep_to_their_decoder,
            self.nobody_is_root,
            self.metrics_are_scraped,
            self.decoder_is_replaced,
            self.load_shows,
            self.drain,
        ):
            started, name = time.monotonic(), probe.__name__.replace("_", " ")
            try:
                told = f"ok  {name}: {probe()}"
            except Exception as error:  # the others are worth knowing, too
                failures += 1
                told = f"NO  {name}: {error!r}"
            print(f"{told} ({time.monotonic() - started:.1f} s)", flush=True)
        return failures

    def click_through_envoy(self) -> str:
        with self._client() as client:
            result = client.segment(PHOTO, points=_POINT)
            assert result.mask.any()
            return f"mask of {int(result.mask.sum())} px, IoU {result.score:.2f}"

    def page_and_gateway(self) -> str:
        page = _get("http://localhost:9001/").decode()
        assert "<html" in page.lower(), page[:200]
        assert _get("http://localhost:9001/readyz") == b"ok\n"
        request = urllib.request.Request("http://localhost:9001/v1/images?image_id=probe", PHOTO.read_bytes())
        stored = json.loads(urllib.request.urlopen(request, timeout=60).read())
        body = json.dumps({"prompts": [{"points": [{"x_px": 300, "y_px": 200}]}]}).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request("http://localhost:9001/v1/images/probe/segment", body, headers)
        answer = json.loads(urllib.request.urlopen(request, timeout=60).read())
        assert answer["results"][0]["masks"]
        return f"page of {len(page)} characters, image of {stored['image']['width_px']} px by HTTP"

    def images_keep_to_their_decoder(self) -> str:
        """With two decoders, all clicks on an image go to one of them, and those on many images to both."""
        self._scale(decoder=2)
        images = [np.random.default_rng(seed).integers(0, 256, (80, 100, 3), np.uint8) for seed in range(12)]
        with self._client() as client:
            names = [client.embed(image).image_id for image in images]
            for _ in range(3):
                for name in names:
                    client.segment(image_id=name, points=[(40, 40)])
        counts = [metrics(address, 9464) for address in self._addresses("decoder")]
        reads = [count.get("maskwire_images_total found=store", 0) for count in counts]
        hits = [count.get("maskwire_images_total found=memory", 0) for count in counts]
        assert all(hits), f"one decoder had nothing to do: {hits}"
        assert sum(reads) <= len(names) + 3, f"images were read {reads} times: they change decoders"
        return f"{len(names)} images, read from the store {reads} times, found in memory {hits} times"

    def nobody_is_root(self) -> str:
        told = []
        for service in SERVERS:
            for container in self._containers(service):
                state = json.loads(self._engine.docker("inspect", container))[0]
                user = self._engine.docker("exec", container, "id", "-u")
                assert user != "0", f"{service} runs as root"
                assert state["HostConfig"]["ReadonlyRootfs"]
                assert state["HostConfig"]["CapDrop"] == ["ALL"]
                assert state["State"]["Health"]["Status"] == "healthy"
                assert (
                    self._engine.docker("exec", container, "sh", "-c", "touch /x 2>/dev/null && echo yes || echo no")
                    == "no"
                )
            told.append(f"{service} {user}")
        return ", ".join(told) + "; file systems read-only"

    def metrics_are_scraped(self) -> str:
        """By Prometheus, which also knows the rules."""
        for _ in range(40):
            found = _query("up")
            jobs = {row["metric"]["job"] for row in found if row["value"][1] == "1"}
            if jobs == {"encoder", "decoder", "gateway"}:
                break
            time.sleep(1)
        assert jobs == {"encoder", "decoder", "gateway"}, found
        rules = json.loads(_get("http://localhost:9090/api/v1/rules"))["data"]["groups"][0]["rules"]
        assert all(rule["health"] in ("ok", "unknown") for rule in rules), rules
        return f"{len(found)} targets, {len(rules)} alert rules"

    def decoder_is_replaced(self) -> str:
        """One is killed under clicks, and another takes its place: no click fails."""
        with self._client() as client, self._clicking(client) as (done, failed):
            time.sleep(2)
            victim = self._containers("decoder")[0]
            self._engine.docker("kill", victim)
            time.sleep(2)
            self._engine.docker("rm", "--force", victim)
            self._scale(decoder=2)
            time.sleep(3)
        assert not failed, failed[:3]
        assert len(self._containers("decoder")) == 2
        return f"{len(done)} clicks and session clicks, none failed; the slowest took {max(done):.2f} s"

    def load_shows(self) -> str:
        """Under load the queue that encoders are scaled by grows, and then it is empty again."""
        depth = 'sum(maskwire_queue_waiting{job="encoder"})'
        random = np.random.default_rng()
        images = [random.integers(0, 256, (80, 100, 3), np.uint8) for _ in range(48)]
        with self._client() as client, self._clicking(client) as (done, failed):
            for _ in client.embed_many(images, bulk=True):
                pass
            time.sleep(12)
        assert not failed, failed[:3]
        found = ask("http://localhost:9090", depth, time.time() - 180, time.time())
        values = [float(value) for _, value in found[0]["values"]]
        assert max(values) > 4, values
        assert values[-1] == 0, values
        for path in self._pictures:
            draw("http://localhost:9090", Path(path), 5)
        return f"{len(done)} clicks beside {len(images)} images; at most {max(values):.0f} waited, at last 0"

    def drain(self) -> str:
        """SIGTERM under clicks: exit 0, and no click fails that another decoder can answer."""
        with self._client() as client, self._clicking(client) as (done, failed):
            time.sleep(1)
            victim = self._containers("decoder")[0]
            self._engine.docker("stop", "--time", "30", victim)
            time.sleep(2)
        assert not failed, failed[:3]
        codes = {"decoder": self._exit_code(victim)}
        for service in ("gateway", "envoy", "decoder", "encoder"):
            container = self._containers(service)[0]
            self._engine.docker("stop", "--time", "40", container)
            codes[service] = self._exit_code(container)
        assert all(code == 0 for code in codes.values()), codes
        return f"{len(done)} clicks meanwhile; exit codes {codes}"

    @contextmanager
    def _clicking(self, client: maskwire.Client) -> Iterator[tuple[list[float], list[str]]]:
        """Clicks on several images and in a session, without end. Yields the seconds each took, and what failed."""
        names = [
            client.embed(np.random.default_rng(seed).integers(0, 256, (80, 100, 3), np.uint8)).image_id
            for seed in range(12, 18)
        ]
        done: list[float] = []
        failed: list[str] = []
        over = threading.Event()

        def unary() -> None:
            number = 0
            while not over.is_set():
                number += 1
                started = time.monotonic()
                try:
                    client.segment(image_id=names[number % len(names)], points=[(40, 40)])
                    done.append(time.monotonic() - started)
                except Exception as error:
                    failed.append(repr(error))

        def session() -> None:
            try:
                with client.session(image_id=names[0]) as stream:
                    while not over.is_set():
                        started = time.monotonic()
                        stream.new_object()
                        stream.click(40, 40)
                        stream.remove_object()
                        done.append(time.monotonic() - started)
            except Exception as error:
                failed.append(f"session: {error!r}")

        threads = [threading.Thread(target=unary), threading.Thread(target=session)]
        for thread in threads:
            thread.start()
        try:
            yield done, failed
        finally:
            over.set()
            for thread in threads:
                thread.join(60)

    def _client(self) -> maskwire.Client:
        return maskwire.Client("localhost:50051", "localhost:50052")

    def _scale(self, **counts: int) -> None:
        scales = [part for service, count in counts.items() for part in ("--scale", f"{service}={count}")]
        self._engine.compose("up", "--detach", "--no-build", "--no-recreate", "--wait", *scales, *counts)
        time.sleep(3)  # Envoy asks for names each second, and tries whom it finds

    def _containers(self, service: str) -> list[str]:
        return self._engine.compose("ps", "--quiet", service).split()

    def _addresses(self, service: str) -> list[str]:
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        return [self._engine.docker("inspect", "--format", form, name).split()[0] for name in self._containers(service)]

    def _exit_code(self, container: str) -> int:
        return int(self._engine.docker("inspect", "--format", "{{.State.ExitCode}}", container))


def metrics(host: str, port: int) -> dict[str, float]:
    """A server's metrics by "name label=value ..."."""
    families = text_string_to_metric_families(_get(f"http://{host}:{port}/metrics").decode())
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def _query(expression: str) -> list[dict[str, dict[str, str]]]:
    text = _get(f"http://localhost:9090/api/v1/query?query={expression}")
    found: list[dict[str, dict[str, str]]] = json.loads(text)["data"]["result"]
    return found


def _get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=30) as response:
        body: bytes = response.read()
    return body


if __name__ == "__main__":
    sys.exit(Probes(Engine(sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]).run())
