"""Imports point one way, the client stays light, and decoders hold no torch."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import maskwire
import maskwire.errors
import maskwire.transport
import pytest
from maskwire import Client

from testing.paths import ROOT
from testing.servers import Stack, running_server

PACKAGES = {
    "maskwire": ROOT / "clients/python/maskwire",
    "maskwire_core": ROOT / "services/core/maskwire_core",
    "maskwire_encoder": ROOT / "services/encoder/maskwire_encoder",
    "maskwire_decoder": ROOT / "services/decoder/maskwire_decoder",
    "maskwire_tracker": ROOT / "services/tracker/maskwire_tracker",
    "maskwire_gateway": ROOT / "services/gateway/maskwire_gateway",
    "maskwire_web": ROOT / "clients/web/maskwire_web",
    "maskwire_adapters": ROOT / "clients/adapters/maskwire_adapters",
    "training": ROOT / "training",
}
# The client's public names, and the names of the package that its calls are made with.
PUBLIC = {f"maskwire.{name}" for name in maskwire.__all__}
TRANSPORT = {f"maskwire.transport.{name}" for name in maskwire.transport.__all__}
ERRORS = {f"maskwire.{name}" for name in maskwire.__all__ if name in vars(maskwire.errors)}
# What each package may import of the others. Of the client, servers take the stubs, decoder and tracker the arithmetic
# that enlarges logits, and the encoder the picture reader.
ALLOWED = {
    "maskwire": set[str](),
    # Of the client, maskwire.suggest has the words for names that do not exist, maskwire.model_names what people call
    # the published models, and there is one arithmetic by which logits are enlarged, one reader of run lengths, one
    # token bucket, one way to write and to judge addresses and one form of errors on the wire. Its package for HTTP
    # answers with the client's errors.
    "maskwire_core": {
        "maskwire.v1",
        "maskwire.suggest",
        "maskwire.bilinear",
        "maskwire.model_names",
        "maskwire.rle",
        "maskwire.token_bucket",
        "maskwire.addresses",
        "maskwire.host_port",
        "maskwire.errors",
        *ERRORS,
    },
    "maskwire_encoder": {
        "maskwire.v1",
        "maskwire.pictures",
        "maskwire.suggest",
        "maskwire.model_names",
        "maskwire_core",
    },
    "maskwire_decoder": {"maskwire.v1", "maskwire.bilinear", "maskwire.model_names", "maskwire_core"},
    # It enlarges logits, and is a client of the encoder.
    "maskwire_tracker": {
        "maskwire.v1",
        "maskwire.bilinear",
        "maskwire.model_names",
        "maskwire_core",
        *ERRORS,
        *TRANSPORT,
    },
    # It is a client of the servers, and shares settings, names of models and errors with them, and with the client the
    # rule by which regions are chosen.
    "maskwire_gateway": {
        *PUBLIC,
        *TRANSPORT,
        "maskwire.v1",
        "maskwire.suggest",
        "maskwire.model_names",
        "maskwire.regions",
        "maskwire_web",
        "maskwire.bilinear",
        "maskwire_core.call_context",
        "maskwire_core.config",
        "maskwire_core.http",
        "maskwire_core.networks",
        "maskwire_core.scheduling.shares",
        "maskwire_core.telemetry.exposition",
        "maskwire_core.telemetry.logs",
        "maskwire_core.runtime.in_thread",
        "maskwire_core.runtime.process_memory",
        "maskwire_core.runtime.thread_priority",
        "maskwire_core.models.registry",
        "maskwire_core.telemetry.tracing",
    },
    "maskwire_web": set(),
    # They are clients of the servers, and serve HTTP as the gateway does.
    "maskwire_adapters": {
        "maskwire",
        "maskwire_core.http",
        "maskwire_core.networks",
        "maskwire_core.scheduling.shares",
    },
    "training": {"maskwire", "maskwire_core", "maskwire_encoder"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    files = [path for path in PACKAGES[package].rglob("*.py") if "v1" not in path.parts]
    assert files
    for path in files:
        for name in imported(path):
            other = name.split(".")[0]
            if other in PACKAGES and other != package:
                assert any(f"{name}.".startswith(f"{allowed}.") for allowed in ALLOWED[package]), (
                    f"{path} imports {name}"
                )


@pytest.mark.parametrize(
    ("pattern", "module"),
    [
        (
            "maskwire:(embedding|lease|alias|prompts|logits|source|decoder|tracker|track|clips?|usage|sizes|writing)",
            "storage/keys.py",
        ),
        (r"ContextVar\(", "call_context.py"),
        (r"\bcontext\.abort\(", "rpc/error_status.py"),
    ],
    ids=["keys of the store", "context variables", "ends of calls with errors"],
)
def test_one_module_has_them(pattern: str, module: str) -> None:
    folders = [*PACKAGES.values(), ROOT / "bench"]
    found = {path for folder in folders for path in folder.rglob("*.py") if re.search(pattern, path.read_text())}
    assert found == {PACKAGES["maskwire_core"] / module}


def test_tests_and_benchmarks_share_only_the_package_testing() -> None:
    for folder, others in (("testing", {"tests", "conftest", "bench"}), ("bench", {"tests", "conftest"})):
        for path in (ROOT / folder).rglob("*.py"):
            assert not {name.split(".")[0] for name in imported(path)} & others, path
    with_bench = {
        path.name
        for path in (ROOT / "tests").rglob("*.py")
        if "bench" in {name.split(".")[0] for name in imported(path)}
    }
    assert with_bench <= {"test_bench.py", "test_cluster_simulation.py"}  # which test the benchmarks themselves


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(' '.join(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in output.stdout.split()}


def test_the_client_is_light() -> None:
    names = loaded_by(
        "import maskwire; maskwire.Client; maskwire.AsyncClient; import maskwire.cli, maskwire.cli.segment"
    )
    assert {"grpc", "numpy", "PIL"} <= names
    assert not names & {"torch", "redis", "onnxruntime", "cv2", "pydantic", "sam2", "maskwire_core"}


def test_the_decoder_has_no_torch() -> None:
    names = loaded_by("import maskwire_decoder.__main__")
    assert {"onnxruntime", "redis"} <= names
    assert not names & {"torch", "sam2", "onnx", "maskwire_encoder"}


def test_the_tracker_has_no_torch() -> None:
    names = loaded_by("import maskwire_tracker.__main__")
    assert {"onnxruntime", "redis"} <= names
    assert not names & {"torch", "sam2", "onnx", "maskwire_encoder", "maskwire_decoder"}


def test_the_gateway_has_neither_torch_nor_a_store() -> None:
    names = loaded_by("import maskwire_gateway.__main__")
    assert {"starlette", "grpc", "cv2"} <= names
    assert not names & {"torch", "sam2", "onnx", "onnxruntime", "redis", "maskwire_encoder", "maskwire_decoder"}


def test_the_adapters_need_no_server() -> None:
    names = loaded_by("import maskwire_adapters.__main__")
    assert {"starlette", "grpc"} <= names
    assert not names & {"torch", "sam2", "onnxruntime", "redis", "cv2", "maskwire_gateway", "maskwire_decoder"}
    assert not names & {"httptools", "websockets", "flask_swagger_ui"}  # what only the gateway's extra brings


def test_the_servers_load_little_of_the_client() -> None:
    names = subprocess.run(
        [sys.executable, "-c", "import maskwire_decoder.__main__, sys; print(' '.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {name for name in names if name.startswith("maskwire.") and not name.startswith("maskwire.v1")} == {
        "maskwire.bilinear",
        "maskwire.token_bucket",
        "maskwire.host_port",
        "maskwire.errors",
        "maskwire.model_names",
        "maskwire.rle",
    }


def test_the_reader_of_pictures_needs_no_client() -> None:
    code = "import maskwire.pictures, sys; print(' '.join(sys.modules))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "PIL" in names
    ours = {name for name in names if name.startswith("maskwire") and not name.startswith("maskwire.pictures")}
    assert ours == {"maskwire", "maskwire.suggest"}
    assert not {"grpc", "google", "pi_heif", "torch"} & {name.split(".")[0] for name in names}


def test_the_running_decoder_has_no_torch(stack: Stack, photo: Path) -> None:
    started = running_server("maskwire_decoder", stack.redis_url, cold=True)
    with started as (decoder, pid), Client(stack.encoder, decoder) as client:
        client.segment(photo, points=[(300, 200)])
        mapped = Path(f"/proc/{pid}/maps").read_text()
    assert "onnxruntime" in mapped
    assert "torch" not in mapped
