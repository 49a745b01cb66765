"""Generates the blocking client, clients/python/maskwire/client.py, blocking_session.py and blocking_track.py, from the
asyncio client.

Signatures and documentation are those of AsyncClient, AsyncSession and AsyncTrack. With --check, only compares.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "clients" / "python" / "maskwire"
_NOTE = "# Written by scripts/generate_blocking.py from {}; change that, and run the script again.\n"
_OWN = {"__init__", "namespace", "__aenter__", "__aexit__", "__repr__", "close", "masks"}
"""Members that the templates below define themselves, or that the blocking client does not have."""

_CLIENT = '''"""The blocking client: `AsyncClient` run on a background event loop."""

{note}
{imports}
from collections.abc import Callable, Iterator
from maskwire.async_client import AnImage, AsyncClient, Prompts
from maskwire.background import iterate_in_background, run_in_background
from maskwire.blocking_session import Session
from maskwire.blocking_track import Track
from maskwire.output_options import FORMATS


@checked
class Client:
    """{doc}

    Safe to use from several threads. Results fetch forms of mask that were not requested on first access.
    """

{init}
        async def connect() -> AsyncClient:
            return AsyncClient({arguments})

        self._client = run_in_background(connect())
        self._client._fetch = self._fetch

    @property
    def namespace(self) -> str:
        """The tenant that was given."""
        return self._client.namespace

    def __repr__(self) -> str:
        return repr(self._client).replace("AsyncClient", "Client")

    def __enter__(self) -> Self:
        self._client._connection.servers.check()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the sessions and the connections. Later calls raise MaskwireError (CLOSED)."""
        run_in_background(self._client.close())

{methods}

    def _fetch(self, request: decoder_pb2.SegmentRequest, index: int) -> Callable[[Format], Sequence[types_pb2.Mask]]:
        """Returns a function that repeats one prompt of a request to get another form of its masks."""

        def fetch(form: Format) -> Sequence[types_pb2.Mask]:
            again = decoder_pb2.SegmentRequest()
            again.CopyFrom(request)
            again.load_logits = False
            del again.prompts[:]
            again.prompts.append(request.prompts[index])
            again.output.ClearField("formats")
            again.output.formats.append(FORMATS[form])
            connection = self._client._connection
            return run_in_background(connection.servers.segment(again, connection.caller)).results[0].masks

        return fetch
'''

_SESSION = '''"""The blocking session: `AsyncSession` run on the background event loop."""

{note}
import weakref
{imports}
from collections.abc import Awaitable, Callable
from typing import TypeVar
from maskwire.background import run_in_background, schedule
from maskwire.session import AsyncSession

T = TypeVar("T")


@checked
class Session:
    """Clicks on one image after another, with objects, undo and previews. Made by `Client.session`.

    Each method sends a request and returns its result, or None if there is no mask: the object has no prompts, or a
    later request superseded a preview. A wrong request raises InvalidRequest and changes nothing; the other errors are
    those of `Client.segment`.

    The session opens at its first use, and is closed by `with`, `close`, or with the client. Safe to use from several
    threads: a preview that waits in one thread returns None when another thread sends a later request.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        # A session that is garbage collected is closed silently.
        weakref.finalize(self, schedule, session.close).atexit = False

    def __repr__(self) -> str:
        return repr(self._session).replace("AsyncSession", "Session")

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the session."""
        run_in_background(self._session.close())

    @property
    def object_id(self) -> str:
        """Name of the object that clicks, boxes and undo apply to; set it to switch to another one."""
        return self._session.object_id

    @object_id.setter
    def object_id(self, object_id: str) -> None:
        self._session.object_id = object_id

{methods}


def _answer(send: Callable[[], Awaitable[T]]) -> T:
    """Sends a request on the background loop, and waits for its result."""

    async def ask() -> T:
        return await send()

    return run_in_background(ask())
'''

_TRACK = '''"""The blocking track: `AsyncTrack` run on the background event loop."""

{note}
import weakref
{imports}
from collections.abc import Iterator
from maskwire.background import iterate_in_background, run_in_background, schedule
from maskwire.track import AsyncTrack


@checked
class Track:
    """{doc}
    """

    def __init__(self, track: AsyncTrack) -> None:
        self._track = track
        # A track that is garbage collected is closed silently.
        weakref.finalize(self, schedule, track.close).atexit = False

    def __repr__(self) -> str:
        return repr(self._track).replace("AsyncTrack", "Track")

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the track, and deletes it and its clip from the store unless it was made with `keep=True`."""
        run_in_background(self._track.close())

{methods}
'''


def _blocking(text: str) -> str:
    """Translates types and words of the asyncio client to those of the blocking one."""
    for old, new in (
        ("AsyncIterator", "Iterator"),
        ("AsyncClient", "Client"),
        ("AsyncSession", "Session"),
        ("AsyncTrack", "Track"),
    ):
        text = text.replace(old, new)
    text = re.sub(r'"?asyncio\.Future\[(.+)\]"?', r"\1", text)
    return text.replace("`async with`", "`with`").replace("`async for`", "`for`")


def _passing(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Returns the arguments of a call that passes on all parameters of a function."""
    passed = [each.arg for each in function.args.args if each.arg != "self"]
    passed += [f"{each.arg}={each.arg}" for each in function.args.kwonlyargs]
    return ", ".join(passed + ([f"**{function.args.kwarg.arg}"] if function.args.kwarg else []))


def _head(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    returns = f" -> {_blocking(ast.unparse(function.returns).strip(chr(39)))}" if function.returns else ""
    return f"def {function.name}({ast.unparse(function.args)}){returns}:"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else line for line in text.splitlines())


def _method(function: ast.FunctionDef | ast.AsyncFunctionDef, target: str) -> str:
    decorators = [ast.unparse(each) for each in function.decorator_list]
    head = "".join(f"@{each}\n" for each in decorators) + _head(function)
    if "overload" in decorators:
        return _indented(f"{head} ...")
    returned = ast.unparse(function.returns) if function.returns else ""
    call = f"{target}.{function.name}({_passing(function)})"
    if "property" in decorators:
        body = f"return {target}.{function.name}"
    elif returned.startswith("AsyncIterator"):
        body = f"return iterate_in_background({call})"
    elif isinstance(function, ast.AsyncFunctionDef):
        body = f"return run_in_background({call})"
    elif "asyncio.Future" in returned:
        body = f"return _answer(lambda: {call})"
    elif returned in ("AsyncSession", "AsyncTrack"):
        made = returned.removeprefix("Async")
        body = f"async def make() -> {returned}:\n    return {call}\n\nreturn {made}(run_in_background(make()))"
    else:
        body = f"return {call}"
    doc = _blocking(ast.get_docstring(function, clean=True) or "")
    doc += "\n" if "\n" in doc else ""
    return _indented(f"{head}\n{_indented(f'{chr(34) * 3}{doc}{chr(34) * 3}' + chr(10) + body)}")


def _class(module: str, name: str) -> tuple[list[str], ast.ClassDef]:
    """Returns the imports of a module, and one of its classes."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    own = [each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == name]
    return [
        ast.unparse(each)
        for each in tree.body
        if isinstance(each, ast.Import | ast.ImportFrom | ast.Assign) and not ast.unparse(each).startswith("_")
    ], own[0]


def _public(node: ast.ClassDef, own: set[str] = _OWN) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    members = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [each for each in members if each.name not in own and not each.name.startswith("_")]


def client() -> str:
    imports, node = _class("async_client", "AsyncClient")
    members = [each for each in node.body if isinstance(each, ast.FunctionDef)]
    (init,) = (each for each in members if each.name == "__init__")
    return _CLIENT.format(
        note=_NOTE.format("async_client.py"),
        imports="\n".join(each for each in imports if " = " not in each),
        doc=_indented(_blocking(ast.get_docstring(node) or "")).strip(),
        init=_indented(_head(init)),
        arguments=_passing(init),
        methods="\n\n".join(_method(each, "self._client") for each in _public(node)),
    )


def session() -> str:
    imports, node = _class("session", "AsyncSession")
    return _SESSION.format(
        note=_NOTE.format("session.py"),
        imports="\n".join(imports),
        methods="\n\n".join(_method(each, "self._session") for each in _public(node)),
    )


def track() -> str:
    imports, node = _class("track", "AsyncTrack")
    return _TRACK.format(
        note=_NOTE.format("track.py"),
        imports="\n".join(each for each in imports if " = " not in each),
        doc=_indented(_blocking(ast.get_docstring(node) or "")).strip(),
        methods="\n\n".join(_method(each, "self._track") for each in _public(node, _OWN - {"masks"})),
    )


def formatted(text: str) -> str:
    """Formats a module, sorts its imports and removes unused ones."""
    ruff = [sys.executable, "-m", "ruff"]
    name = str(PACKAGE / "client.py")
    commands = (
        [*ruff, "check", "--quiet", "--select", "F401,I", "--fix", "--stdin-filename", name, "-"],
        [*ruff, "format", "--quiet", "--stdin-filename", name, "-"],
        [*ruff, "check", "--quiet", "--select", "F401,I", "--fix", "--stdin-filename", name, "-"],
    )
    for command in commands:
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return text


def main() -> None:
    checking = "--check" in sys.argv[1:]
    for name, text in (
        ("client.py", client()),
        ("blocking_session.py", session()),
        ("blocking_track.py", track()),
    ):
        path, fresh = PACKAGE / name, formatted(text)
        if not checking:
            path.write_text(fresh)
        elif path.read_text() != fresh:
            sys.exit(f"error: {path.name} is not what scripts/generate_blocking.py makes of the asyncio client; run it")


if __name__ == "__main__":
    main()
