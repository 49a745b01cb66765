"""README.md and the tutorials: their snippets run in order, against real servers; what cannot run here is listed."""

import configparser
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from maskwire_core.models.registry import PUBLISHED
from pycocotools.coco import COCO

from testing.adapters import adapter
from testing.documents import Reader, Snippet, snippets
from testing.paths import ROOT
from testing.servers import Stack, up

TUTORIALS = sorted(path for path in (ROOT / "docs/tutorials").glob("*.md") if path.name != "index.md")
PAGES = [ROOT / "README.md", *TUTORIALS]


def options_parse(command: str, reader: Reader) -> None:
    """The command line knows the command and its options: it would rather complain about an unknown one than help."""
    reader.shell(f"{command} --help")


def model_is_published(command: str, reader: Reader) -> None:
    options_parse(command, reader)
    assert command.split()[-1] in PUBLISHED


def script_exists(command: str, _: Reader) -> None:
    assert (ROOT / command.split()[0]).stat().st_mode & 0o100


def compatibility_installs_it(command: str, _: Reader) -> None:
    assert "label-studio" in (ROOT / "tests/compatibility/test_label_studio.py").read_text()


def dockerfile_exists(command: str, _: Reader) -> None:
    words = command.split()
    assert (ROOT / words[words.index("-f") + 1]).is_file()
    assert words[-1] == "."


def overlay_builds(command: str, reader: Reader) -> None:
    """The folder of -k, or the last word, is one that kustomize builds (where kubectl is installed)."""
    words = command.split()
    overlay = reader.folder / (words[words.index("-k") + 1] if "-k" in words else words[-1])
    assert (overlay / "kustomization.yaml").is_file()
    if shutil.which("kubectl"):
        built = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, text=True)
        assert built.returncode == 0, built.stderr
        if "name: maskwire/" in (overlay / "kustomization.yaml").read_text():
            images = re.findall(r"^\s+image: (\S+)", built.stdout, re.M)
            assert [image for image in images if image.startswith("maskwire/")] == []


def secret_is_made(command: str, reader: Reader) -> None:
    """kubectl makes the secret without sending it (where it is installed)."""
    for name in re.findall(r"=(\S+\.pem|\S+\.json)", command):
        assert name.endswith(".pem") or (reader.folder / name).is_file()
    if shutil.which("kubectl") and ".pem" not in command:
        reader.shell(f"{command} --dry-run=client -o yaml")


def no_check(_: str, __: Reader) -> None:
    pass


NOT_RUN: dict[str, tuple[str, Callable[[str, Reader], None]]] = {
    r"scripts/setup": ("it made the environment in which the tests run", script_exists),
    r"source \.venv/bin/activate": ("the tests run in that environment", no_check),
    r"maskwire models pull ": ("downloads a checkpoint; tests of downloads use a local server", model_is_published),
    r"(MASKWIRE_ORIGINS=\S+ )?maskwire up\b": ("runs until Ctrl-C; the tests' servers stand in", options_parse),
    r"maskwire track ": ("needs a model with a memory; tests/services/client/test_tracks.py has one", options_parse),
    r"python -m venv label-studio-venv|.*label-studio-venv/bin/": ("2.5 GB", compatibility_installs_it),
    r"export LABEL_STUDIO_API_KEY=": ("a token of that Label Studio", no_check),
    r"python -m maskwire_adapters label-studio": ("runs until Ctrl-C; the tests' adapter stands in", no_check),
    r"python -m http\.server 8080": ("runs until Ctrl-C; tests/page serves the folder", no_check),
    r"docker build ": ("needs a Docker engine; scripts/deploy-check builds the images", dockerfile_exists),
    r"docker push ": ("needs a registry", no_check),
    r"kubectl (apply|diff|kustomize) ": ("needs a cluster", overlay_builds),
    r"kubectl (.* )?(wait|port-forward|label) ": ("needs a cluster", no_check),
    r"kubectl .*create secret ": ("needs a cluster", secret_is_made),
}
"""Commands that do not run here, by pattern: why not, and how they are checked instead."""

PLAIN = {"xml", "html", "ini"}
"""Languages of files that other snippets or tests use."""


def not_run(command: str) -> str | None:
    return next((pattern for pattern in NOT_RUN if re.match(pattern, command)), None)


@pytest.fixture
def reader(tmp_path: Path, stack: Stack, gateway: str) -> Reader:
    """A reader who has a clone, as far as pages use it, and `maskwire up` in another terminal."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for folder in ("docker", "kubernetes"):
        shutil.copytree(ROOT / "deploy" / folder, tmp_path / "deploy" / folder)
    replacements = {
        "http://localhost:9001": gateway,
        "localhost:50051": stack.encoder,
        "localhost:50052": stack.decoder,
    }
    return Reader(tmp_path, stack.environment, replacements)


def run(snippet: Snippet, reader: Reader) -> str:
    """Runs a snippet, or writes it if it is a file. Returns what it prints."""
    if snippet.title:
        reader.write(snippet.title, snippet.text)
        return ""
    if snippet.language == "python":
        reader.write("snippet.py", snippet.text)
        return reader.shell("python snippet.py")
    script = []
    for command in snippet.commands:
        pattern = not_run(command)
        if pattern is None:
            script.append(command)
            continue
        # What comes before may make what the check looks at.
        reader.shell("\n".join(script))
        script = []
        NOT_RUN[pattern][1](reader.replaced(command), reader)
    return reader.shell("\n".join(script))


def read(page: Path, reader: Reader) -> str:
    """Runs a page from top to bottom. Returns what its snippets print."""
    return "".join(run(snippet, reader) for snippet in snippets(page))


def files(reader: Reader) -> set[str]:
    return {path.name for path in reader.folder.iterdir()}


def test_readme(reader: Reader) -> None:
    output = read(ROOT / "README.md", reader)
    assert {"mask.png", "overlay.png", "clicks.png", "bison.png"} <= files(reader)
    assert "(570, 760)" in output
    assert '"counts"' in output  # curl
    assert "[570, 760]" in output  # gRPC


def test_segment_a_folder(reader: Reader) -> None:
    output = read(ROOT / "docs/tutorials/segment-a-folder.md", reader)
    assert "2 masks in dataset.json" in output
    for name, categories in (("cups.json", ["object"]), ("objects.json", ["cup", "spoon"]), ("dataset.json", ["cup"])):
        dataset = COCO(reader.folder / name)
        assert [category["name"] for category in dataset.loadCats(dataset.getCatIds())] == categories
        assert all(dataset.annToMask(entry).any() for entry in dataset.loadAnns(dataset.getAnnIds()))
        assert len(dataset.getAnnIds()) == 2
    assert "everything.png" in files(reader)


def test_annotation_tool(reader: Reader) -> None:
    output = read(ROOT / "docs/tutorials/annotation-tool.md", reader)
    assert '"png"' in output


def test_label_studio(reader: Reader, stack: Stack) -> None:
    with adapter(stack, "label-studio", "--host-url", "http://localhost:8080") as http:
        reader.replacements["http://localhost:9090"] = str(http.base_url).rstrip("/")
        output = read(ROOT / "docs/tutorials/label-studio.md", reader)
    assert "['brushlabels']" in output


def test_gpu_server(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's own servers: with tokens and TLS, but the demo model on the CPU and free ports."""
    page = snippets(ROOT / "docs/tutorials/gpu-server.md")
    with ExitStack() as started:
        output = ""
        for snippet in page:
            output += run(snippet, reader)
            if any(command.startswith("maskwire up") for command in snippet.commands):
                for name, value in reader.exported().items():
                    monkeypatch.setenv(name, value)
                servers = started.enter_context(up("--decoders", "2", gateway=True))
                assert servers.gateway
                reader.replacements = {
                    "https://localhost:9001/": servers.gateway,
                    "localhost:50051": servers.encoder,
                    "localhost:50052": servers.decoder,
                }
    assert "refused" in output
    assert '"sam2' not in output  # the demo model answers
    assert '"demo"' in output
    assert "cup.png" in files(reader)
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(reader.folder / "maskwire.service")
    options_parse(unit["Service"]["ExecStart"].removeprefix("/opt/maskwire/.venv/bin/"), reader)


def test_kubernetes(reader: Reader) -> None:
    output = read(ROOT / "docs/tutorials/kubernetes.md", reader)
    assert '"counts"' in output
    assert json.loads((reader.folder / "tokens.json").read_text())


def commands() -> Iterator[str]:
    for page in PAGES:
        for snippet in snippets(page):
            if snippet.language == "bash":
                yield from snippet.commands


def test_every_page_is_run_and_every_exception_used() -> None:
    ran = {name for name in globals() if name.startswith("test_")}
    for page in TUTORIALS:
        assert f"test_{page.stem.replace('-', '_')}" in ran
        for snippet in snippets(page):
            assert snippet.language in {"bash", "python"} or (snippet.language in PLAIN and snippet.title), (
                snippet.place
            )
    used = {not_run(command) for command in commands()} - {None}
    assert used == set(NOT_RUN)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert (ROOT / picture).stat().st_size < 200_000
