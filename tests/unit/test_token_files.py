"""Files of tokens, and rates."""

import asyncio
import threading
from pathlib import Path

import pytest
from maskwire.token_bucket import TokenBucket
from maskwire_core.call_context import begin, current
from maskwire_core.rpc.authorization import Authorizer
from maskwire_core.tenancy import tokens
from maskwire_core.tenancy.tenant import EVERYBODY, Caller, Callers
from maskwire_core.tenancy.tokens import Token, TokenError


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
        Callers(file)


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


def test_a_caller_exists_only_within_an_authorized_call() -> None:
    with pytest.raises(RuntimeError, match="no call is being answered"):
        current()

    async def answer() -> None:
        call = begin("")
        with pytest.raises(RuntimeError, match="not authorized"):
            _ = current().caller
        with Authorizer(None, {}).authorized(call, "Segment", {}):
            assert current().caller is EVERYBODY

    asyncio.run(answer())
