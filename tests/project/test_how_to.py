"""The commands of the how-to pages: their options, services, profiles, scripts and folders exist.

They are not run, since most of them start what runs until Ctrl-C; tutorials are (tests/services/test_documents.py).
"""

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
import yaml
from maskwire.cli.app import app
from maskwire_core.config import DecoderSettings, EncoderSettings, GatewaySettings, Settings
from maskwire_core.models.cli import app as models
from maskwire_core.storage.cli import app as store
from maskwire_core.tenancy.cli import app as token

from testing.documents import snippets
from testing.paths import ROOT

PAGES = sorted((ROOT / "docs/how-to").glob("*.md"))
SERVERS: dict[str, type[Settings]] = {
    "maskwire_encoder": EncoderSettings,
    "maskwire_decoder": DecoderSettings,
    "maskwire_gateway": GatewaySettings,
}
GROUPS = {"models": models, "store": store, "token": token}
FIRST = r"(?:[A-Z_]+=\S+ )*(?:maskwire|python -m|docker compose|kubectl|kustomize|scripts/|export|label-studio)"


def commands() -> Iterator[tuple[str, str]]:
    """Page and command: of blocks, and between backticks."""
    for page in PAGES:
        text = page.read_text()
        found = re.findall(rf"^(?:    )?({FIRST}.*?)(?:\s{{2,}}.*|\s+# .*)?$", text, re.M)
        found += [command for command in re.findall(rf"`({FIRST}[^`]*)`", text) if " " in command]
        for command in found:
            yield page.stem, command.replace("|", " ").removesuffix("...").strip()


def check_maskwire(words: list[str]) -> None:
    place = typer.main.get_command(app)
    if words[0] in GROUPS:
        place = typer.main.get_command(GROUPS[words.pop(0)])
        if not words:
            return
    known = getattr(place, "commands", {})
    if not words[0].startswith("-"):
        place = known[words[0]]
    options = {option for parameter in place.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if re.match(r"--?[a-z]", word)} <= options | {"--help"}


def check_server(words: list[str]) -> None:
    fields = SERVERS[words[0]].model_fields
    for word in words[1:]:
        if word.startswith("--"):
            assert word.removeprefix("--").replace("-", "_") in fields | {"help": None}, word


def check_compose(words: list[str]) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    profiles = {profile for service in services.values() for profile in service.get("profiles", ())}
    for before, word in itertools.pairwise(words):
        if before == "--profile":
            assert word in profiles
        if before == "--scale":
            assert word.partition("=")[0] in services
    for verb in ("run", "exec"):
        if verb in words:
            rest = [word for word in words[words.index(verb) + 1 :] if not word.startswith("-")]
            assert rest[0] in services
            if rest[0] == "admin":
                check_maskwire(["store", *rest[1:]])


def check(command: str) -> None:
    words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
    match words:
        case ["maskwire", *rest]:
            if rest:
                check_maskwire(rest)
        case ["python", "-m", module, *rest] if module in SERVERS:
            check_server([module, *rest])
        case ["python", "-m", module, *_]:
            names = (module.replace(".", "/"), f"clients/adapters/{module}")
            assert any((ROOT / f"{name}.py").is_file() or (ROOT / name).is_dir() for name in names), module
        case ["docker", "compose", *rest]:
            check_compose(rest)
        case ["kubectl", *rest] if "-k" in rest:
            assert (ROOT / rest[rest.index("-k") + 1] / "kustomization.yaml").is_file()
        case [program, *rest] if program.startswith("scripts/"):
            text = (ROOT / program).read_text()
            parser = ROOT / "deploy/check/__main__.py"  # of scripts/deploy-check
            assert all(word in text + parser.read_text() for word in rest if word.startswith("--"))


def test_the_override_of_compose_fits(tmp_path: Path) -> None:
    (override,) = (part for part in snippets(ROOT / "docs/how-to/deploy.md") if part.title.startswith("docker-compose"))
    (tmp_path / override.title).write_text(override.text)
    program = shutil.which("docker-compose", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program is not None, "scripts/setup installs docker-compose"
    files = [word for file in (ROOT / "docker-compose.yml", tmp_path / override.title) for word in ("-f", str(file))]
    made = subprocess.run([program, *files, "config"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    merged = yaml.safe_load(made.stdout)["services"]
    for service in ("encoder", "decoder"):
        assert merged[service]["environment"]["MASKWIRE_TOKENS"] == "/tokens/tokens.json"
        assert {volume["target"] for volume in merged[service]["volumes"]} >= {"/tokens", "/secrets"}
        assert merged[service]["environment"]["MASKWIRE_REDIS_PASSWORD_FILE"]


def test_pages_have_commands() -> None:
    assert len(list(commands())) > 30
    assert {page for page, _ in commands()} >= {"deploy", "labelling-tools", "models", "monitor", "secure"}


@pytest.mark.parametrize(("page", "command"), list(commands()), ids=lambda value: value[:40].replace(" ", "_"))
def test_commands_are_understood(page: str, command: str) -> None:
    check(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options_and_variables_that_pages_name_exist(page: Path) -> None:
    named = set(re.findall(r"`MASKWIRE_([A-Z_]+)`|\bMASKWIRE_([A-Z_]+)=", page.read_text()))
    known = {name.upper() for kind in SERVERS.values() for name in kind.model_fields}
    compose = set(re.findall(r"\$\{MASKWIRE_([A-Z_]+):", (ROOT / "docker-compose.yml").read_text()))
    client = {"ENCODER", "DECODER", "TOKEN", "TLS", "TLS_CA", "TLS_CLIENT_CERT", "TLS_CLIENT_KEY"}
    up = {"MIRROR", "OFFLINE"}
    assert {first or second for first, second in named} <= known | compose | client | up
