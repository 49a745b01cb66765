"""Stubs and tools of other languages: buf, protoc, Go, and clients that know the servers by reflection alone."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from maskwire import Client

from testing.foreign_programs import installed_by_npm
from testing.paths import ROOT
from testing.servers import Stack

pytestmark = [pytest.mark.compatibility, pytest.mark.timeout(900)]

GOCODE = Path("/usr/share/gocode")  # where Debian has Go's packages
PAGE = ROOT / "docs/how-to/other-languages.md"


@pytest.fixture(scope="module")
def buf() -> Path:
    return installed_by_npm("@bufbuild/buf@1.75.0") / "buf"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the compilers read of the repository, in a folder that they may write to."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("protos", "clients/go"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("v1") if "go" in name else None)
    for name in ("buf.yaml", "buf.gen.yaml"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def commands(checkout: Path, buf: Path) -> dict[str, subprocess.CompletedProcess[str]]:
    """The commands of the page's sections about buf and protoc, run in their order."""
    for program in ("protoc", "protoc-gen-go", "protoc-gen-go-grpc"):
        assert shutil.which(program), f"{program} is not on PATH; scripts/test --compatibility installs it"
    environment = {**os.environ, "PATH": f"{buf.parent}:{os.environ['PATH']}"}
    done = {}
    for command in re.findall(r"^(?:buf (?:lint|generate)|mkdir|protoc) ?.*$", PAGE.read_text(), re.M):
        done[command] = subprocess.run(
            command, shell=True, cwd=checkout, env=environment, capture_output=True, text=True, timeout=300
        )
    return done


@pytest.mark.client("buf", "`buf lint`, `buf generate`", package="@bufbuild/buf")
@pytest.mark.client("protoc", "stubs for Java, C# and C++", version="Debian 12's (3.21)")
def test_the_pages_commands(commands: dict[str, subprocess.CompletedProcess[str]], checkout: Path) -> None:
    assert len(commands) >= 5
    for command, done in commands.items():
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    found = {path.relative_to(checkout).as_posix() for path in checkout.rglob("*") if path.is_file()}
    assert {
        "out/java/com/maskwire/v1/SegmentRequest.java",
        "out/csharp/Types.cs",
        "out/cpp/maskwire/v1/decoder.pb.h",
        "out/cpp/google/rpc/status.pb.h",
        "clients/go/v1/decoder.pb.go",
        "clients/go/v1/decoder_grpc.pb.go",
    } <= found
    assert "namespace Maskwire.V1" in (checkout / "out/csharp/Types.cs").read_text()


@pytest.fixture(scope="module")
def go_click(commands: dict[str, Any], checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example for Go, compiled with Debian's packages."""
    for needed in (shutil.which("go"), (GOCODE / "src/google.golang.org/grpc").exists()):
        assert needed, "golang-go and golang-google-grpc-dev are missing; scripts/test --compatibility installs them"
    folder = tmp_path_factory.mktemp("go")
    (folder / "src").mkdir()
    (folder / "src/maskwire").symlink_to(checkout / "clients/go")
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": f"{folder}:{GOCODE}", "GOCACHE": str(folder / "cache")}
    for words in (["vet", "maskwire/click"], ["build", "-o", str(folder / "click"), "maskwire/click"]):
        done = subprocess.run(["go", *words], env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    return folder / "click"


@pytest.mark.client("Go, grpc-go", "EncodeImage, Segment, details of errors", version="Debian 12's (1.33)")
def test_go(go_click: Path, stack: Stack, client: Client, photo: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **stack.environment}
        return subprocess.run([go_click, *words], env=environment, capture_output=True, text=True, timeout=60)

    done = run(str(photo), "300", "200")
    assert done.returncode == 0, done.stderr
    found, expected = json.loads(done.stdout), client.segment(photo, points=[(300, 200)])
    assert (found["height"], found["width"]) == expected.mask.shape
    assert found["area"] == int(expected.mask.sum())
    assert found["score"] == pytest.approx(expected.score, abs=1e-6)
    wrong = run(str(photo), "30000", "200")
    assert wrong.returncode == 1
    assert "outside of the image, which is 600 px wide [OUT_OF_IMAGE] (prompts[0].points[0].x_px)" in wrong.stderr


@pytest.mark.client("buf curl", "reflection v1 and v1alpha, Segment, errors", package="@bufbuild/buf")
@pytest.mark.parametrize("version", ["grpc-v1", "grpc-v1alpha"])
def test_buf_curl_by_reflection(buf: Path, stack: Stack, client: Client, photo: Path, version: str) -> None:
    def curl(address: str, *words: str) -> subprocess.CompletedProcess[str]:
        options = ("--protocol", "grpc", "--http2-prior-knowledge", "--reflect-protocol", version)
        *options_of_call, path = words
        command = [str(buf), "curl", *options, *options_of_call, f"http://{address}{path}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    methods = curl(stack.decoder, "--list-methods", "")
    assert methods.returncode == 0, methods.stderr
    assert {
        "maskwire.v1.DecoderService/Segment",
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "grpc.health.v1.Health/Check",
    } <= set(methods.stdout.split())
    client.embed(photo, "by reflection")
    prompt = {"image_id": "by reflection", "prompts": [{"points": [{"x_px": 260, "y_px": 130}]}]}
    done = curl(stack.decoder, "-d", json.dumps(prompt), "/maskwire.v1.DecoderService/Segment")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert result["masks"][0]["rle"]["counts"] == client.segment(photo, points=[(260, 130)]).rle["counts"]
    nobody = curl(stack.encoder, "-d", '{"image_id": "nobody"}', "/maskwire.v1.EncoderService/GetImage")
    assert nobody.returncode != 0
    assert "no image named 'nobody' is stored" in nobody.stderr
