"""The command that writes files of tokens."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from maskwire_core.tenancy import cli
from maskwire_core.tenancy.tenant import Callers
from typer.testing import CliRunner

from testing.warm import run_module


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tokens.json"
    words = ["-n", "acme", "-n", "labs", "-r", "read", "--expires", "30d", "--requests-per-s", "5", "--note", "Ann's"]
    made = run_module("maskwire.cli", "token", "new", *words, "--tokens", str(file))
    assert made.returncode == 0, made.stderr
    text = made.stdout.strip()
    assert text not in file.read_text()
    assert text not in made.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    caller = Callers(file).find(text)
    assert caller is not None
    entry = caller.token
    assert (entry.namespaces, set(entry.rights), entry.requests_per_s) == (("acme", "labs"), {"read"}, 5)
    assert entry.expires_at is not None
    assert 29 < (entry.expires_at - datetime.now(UTC)).days + 1 <= 31
    assert Callers(file).find(text + "x") is None

    def run(*more: str) -> tuple[int, str]:
        outcome = CliRunner().invoke(cli.app, [*more, "--tokens", str(file)])
        return outcome.exit_code, outcome.output

    monkeypatch.setenv("COLUMNS", "60")
    assert entry.id in run("list")[1]  # whole, to be copied into `revoke`
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
