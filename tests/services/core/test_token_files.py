"""Files of tokens, the command that writes them, and rates."""

import json
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from maskwire.token_bucket import TokenBucket
from maskwire_core.tenancy import cli, tokens
from maskwire_core.tenancy.tenant import Caller
from maskwire_core.tenancy.tokens import Token, TokenError, Tokens
from typer.testing import CliRunner


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    words = ["-n", "acme", "-n", "labs", "-r", "read", "--expires", "30d", "--requests-per-s", "5", "--note", "Ann's"]
    command = [sys.executable, "-m", "maskwire.cli", "token", "new", *words, "--tokens", str(file)]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    text = made.stdout.strip()
    assert text not in file.read_text()
    assert text not in made.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    entry = Tokens(file).find(text)
    assert entry is not None
    assert (entry.namespaces, set(entry.rights), entry.requests_per_s) == (("acme", "labs"), {"read"}, 5)
    assert entry.expires_at is not None
    assert 29 < (entry.expires_at - datetime.now(UTC)).days + 1 <= 31
    assert Tokens(file).find(text + "x") is None

    def run(*more: str) -> tuple[int, str]:
        outcome = CliRunner().invoke(cli.app, [*more, "--tokens", str(file)])
        return outcome.exit_code, outcome.output

    assert entry.id in run("list")[1]
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


def test_many_write_the_file_at_once(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"

    def add() -> None:
        for _ in range(10):
            new = [tokens.issue(namespaces=["a"], rights=["read"])[1]]
            tokens.change_tokens(file, lambda entries, new=new: entries + new)  # type: ignore[misc]

    threads = [threading.Thread(target=add) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each.id for each in tokens.read_tokens(file)}) == 60


@pytest.mark.parametrize("content", [None, "", "[]", '{"version": 2, "tokens": []}', '{"tokens": [{"id": "a"}]}'])
def test_a_server_does_not_start_without_its_tokens(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "tokens.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(TokenError, match=r"tokens\.json"):
        Tokens(file)


def test_a_bucket_keeps_its_rate() -> None:
    now = 0.0
    bucket = TokenBucket(10, 20, lambda: now)
    bucket.take(20)
    assert bucket.wait_s(1) == pytest.approx(0.1)
    now = 1.0
    assert bucket.wait_s(10) == 0
    assert bucket.wait_s(11) == pytest.approx(0.1)
    now = 100.0
    assert bucket.wait_s(1000) == 0  # more than it ever holds passes when it is full
    bucket.take(1000)
    assert bucket.wait_s(1) == pytest.approx(98.1)
    caller = Caller(Token(id="a", sha256="0" * 64, namespaces=("a",), rights=frozenset(), requests_per_s=1, burst_s=3))
    for _ in range(3):
        caller.charge(requests=1)
    with pytest.raises(Exception, match="rate is used up"):
        caller.charge(requests=1)
