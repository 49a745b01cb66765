"""The real Label Studio server, once for all tests: projects whose backend is the adapter."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from maskwire.cli.free_ports import free_port
from numpy.typing import NDArray

from testing.adapters import adapter
from testing.foreign_programs import installed
from testing.processes import running, wait_until
from testing.servers import Stack

USER, PASSWORD = "someone@example.com", "a-long-password-1"
CONFIG = """<View><Image name="image" value="$image"/>
<BrushLabels name="mask" toName="image"><Label value="Cup"/><Label value="Plate"/></BrushLabels>
<KeyPointLabels name="point" toName="image" smart="true"><Label value="Cup"/><Label value="Plate"/></KeyPointLabels>
<RectangleLabels name="box" toName="image" smart="true"><Label value="Cup"/><Label value="Plate"/></RectangleLabels>
</View>"""
DECODE = """
import json, sys
from label_studio_sdk.converter import brush
print(json.dumps((brush.decode_rle(json.load(sys.stdin))[3::4] > 0).tolist()))
"""


@dataclass
class Server:
    """Label Studio, with its user logged in."""

    http: httpx.Client
    log: Path


@dataclass
class Project:
    """A project in Label Studio whose backend is the adapter."""

    http: httpx.Client
    number: int
    tasks: list[int]
    backend: int
    program: Path

    @property
    def task(self) -> int:
        return self.tasks[0]

    def ask(self, regions: list[dict[str, Any]] | None) -> dict[str, Any]:
        body = {"task": self.task, "context": None if regions is None else {"result": regions}}
        answer = self.http.post(f"/api/ml/{self.backend}/interactive-annotating", json=body, timeout=60)
        answer.raise_for_status()
        content: dict[str, Any] = answer.json()
        return content

    def mask(self, regions: list[dict[str, Any]]) -> NDArray[np.bool_]:
        """The mask as Label Studio's own code reads it."""
        (region,) = self.ask(regions)["data"]["result"]
        rle = json.dumps(region["value"]["rle"])
        command = [self.program / "python", "-c", DECODE]
        done = subprocess.run(command, input=rle, capture_output=True, text=True, check=True)
        shape = (region["original_height"], region["original_width"])
        return np.array(json.loads(done.stdout), bool).reshape(shape)


@pytest.fixture(scope="session")
def label_studio_program() -> Path:
    return installed("label-studio==1.23.2")


@pytest.fixture(scope="session")
def server(label_studio_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("label-studio"), free_port()
    environment = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "LABEL_STUDIO_USERNAME": USER,
        "LABEL_STUDIO_PASSWORD": PASSWORD,
        # Else it refuses backends on this machine, and the webhooks that it makes for them.
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
    }
    command = [str(label_studio_program / "label-studio"), "start", "--no-browser", "--port", str(port)]
    log = folder / "log"
    with log.open("wb") as output, running(command, environment, output) as process:
        address = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            try:
                return httpx.get(f"{address}/health").is_success
            except httpx.TransportError:
                return False

        wait_until(answers, 1500, process)  # its migrations take a minute, or many where others work, too
        with httpx.Client(base_url=address, timeout=60, follow_redirects=True) as http:
            http.get("/user/login/")
            form = {"email": USER, "password": PASSWORD, "csrfmiddlewaretoken": http.cookies["csrftoken"]}
            http.post("/user/login/", data=form, headers={"Referer": address})
            http.headers.update({"X-CSRFToken": http.cookies["csrftoken"], "Referer": address})
            yield Server(http, log)


@pytest.fixture(scope="session")
def personal_token(server: Server) -> str:
    answer = server.http.post("/api/token/")
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


@pytest.fixture(scope="session")
def address(server: Server, personal_token: str, stack: Stack) -> Iterator[str]:
    """Address of the adapter."""
    arguments = ("--host-url", str(server.http.base_url), "--api-token", personal_token)
    with adapter(stack, "label-studio", *arguments) as http:
        yield str(http.base_url)


def connected(server: Server, address: str, program: Path, config: str, *pictures: tuple[str, bytes]) -> Project:
    """Makes a project of pictures, and connects the adapter to it."""
    http = server.http
    made = http.post("/api/projects", json={"title": "maskwire", "label_config": config}).json()["id"]
    for name, content in pictures:
        files = {"file": (name, content, "image/jpeg")}
        assert http.post(f"/api/projects/{made}/import", files=files).status_code == 201
    tasks: list[int] = []

    def imported() -> bool:
        tasks[:] = sorted(task["id"] for task in http.get("/api/tasks", params={"project": made}).json()["tasks"])
        return len(tasks) == len(pictures)

    wait_until(imported, 60)
    backend = {"url": address, "project": made, "title": "Maskwire", "is_interactive": True}
    answer = http.post("/api/ml", json=backend)
    assert answer.status_code == 201, answer.text
    return Project(http, made, tasks, answer.json()["id"], program)
