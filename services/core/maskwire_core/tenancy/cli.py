"""maskwire token: new, list, revoke. Joined to the maskwire command by an entry point (pyproject.toml)."""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from maskwire_core.tenancy.tokens import Token

app = typer.Typer(
    help="Bearer tokens: who may do what. Servers that are started with --tokens FILE read changes within a second.",
    no_args_is_help=True,
)

File = Annotated[
    Path, typer.Option("--tokens", envvar="MASKWIRE_TOKENS", help="File of tokens; it holds digests, no token.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
_FILE = Path("tokens.json")
_DEFAULT_RIGHTS = ["encode", "segment", "read", "delete"]


def _fail(error: Exception) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


@app.command()
def new(
    namespace: Annotated[
        list[str],
        typer.Option("--namespace", "-n", help="Namespace in which it is valid; the first is its own. '*': every one."),
    ],
    right: Annotated[
        list[str],
        typer.Option("--right", "-r", help="What it allows: encode, segment, read, delete, stats. Repeatable."),
    ] = _DEFAULT_RIGHTS,
    expires: Annotated[str | None, typer.Option(help="When it ends: in 12h, 30d, ...; never if not given.")] = None,
    note: Annotated[str, typer.Option(help="Whose it is, for people.")] = "",
    requests_per_s: Annotated[float | None, typer.Option(help="Calls and prompts a second.")] = None,
    encodes_per_s: Annotated[float | None, typer.Option(help="Images a second that must be encoded.")] = None,
    bytes_per_s: Annotated[float | None, typer.Option(help="Bytes of image files and requests a second.")] = None,
    burst_s: Annotated[float, typer.Option(help="Seconds' worth of these rates that may be used at once.")] = 5,
    max_image_bytes: Annotated[int | None, typer.Option(help="Largest image file.")] = None,
    quota_bytes: Annotated[int | None, typer.Option(help="Bytes of embeddings that its namespace may keep.")] = None,
    ttl: Annotated[str | None, typer.Option(help="How long its embeddings are kept: 90s, 12h, ...")] = None,
    file: File = _FILE,
) -> None:
    """Make a token and print it: this once, it is kept nowhere. Limits hold in each server process."""
    from maskwire_core import durations
    from maskwire_core.tenancy import tokens

    now = datetime.now(UTC).replace(microsecond=0)
    try:
        text, entry = tokens.issue(
            namespaces=namespace,
            rights=right,
            note=note,
            created_at=now,
            expires_at=now + timedelta(seconds=durations.seconds(expires)) if expires else None,
            requests_per_s=requests_per_s,
            encodes_per_s=encodes_per_s,
            bytes_per_s=bytes_per_s,
            burst_s=burst_s,
            max_image_bytes=max_image_bytes,
            quota_bytes=quota_bytes,
            ttl_s=int(durations.seconds(ttl)) if ttl else None,
        )
        tokens.change(file, lambda entries: [*entries, entry])
    except (tokens.TokenError, ValueError) as error:
        _fail(error)
    print(text)
    print(f"{file}: token {entry.id} for {', '.join(entry.namespaces)}. Clients: MASKWIRE_TOKEN=...", file=sys.stderr)


@app.command("list")
def list_tokens(file: File = _FILE, as_json: AsJson = False) -> None:
    """Show the tokens' ids, namespaces, rights and limits. The tokens themselves are not known."""
    from rich.console import Console
    from rich.table import Table

    from maskwire_core.tenancy import tokens

    try:
        entries = tokens.read(file)
    except tokens.TokenError as error:
        _fail(error)
    if as_json:
        print(json.dumps({"tokens": [entry.model_dump(mode="json", exclude={"sha256"}) for entry in entries]}))
        return
    table = Table("id", "namespaces", "rights", "expires", "limits", "note")
    for entry in entries:
        rights = ", ".join(right for right in tokens.RIGHTS if right in entry.rights)
        table.add_row(entry.id, ", ".join(entry.namespaces), rights, _expiry(entry), _limits(entry), entry.note)
    Console().print(table)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="ID", help="Its id, as 'maskwire token list' shows it.")],
    file: File = _FILE,
) -> None:
    """Take a token out. Calls with it end within seconds, open streams too."""

    from maskwire_core.tenancy import tokens

    def without(entries: "list[Token]") -> "list[Token]":
        left = [entry for entry in entries if entry.id != name]
        if len(left) == len(entries):
            raise tokens.TokenError(f"{file} has no token {name!r}; see 'maskwire token list'")
        return left

    try:
        tokens.change(file, without)
    except tokens.TokenError as error:
        _fail(error)
    print(f"{file}: token {name} is revoked", file=sys.stderr)


def _expiry(entry: "Token") -> str:
    if entry.expires_at is None:
        return "never"
    return "expired" if entry.expired else entry.expires_at.isoformat(" ", "minutes")


def _limits(entry: "Token") -> str:
    names = ("requests_per_s", "encodes_per_s", "bytes_per_s", "max_image_bytes", "quota_bytes", "ttl_s")
    return "\n".join(f"{name} {value:g}" for name in names if (value := getattr(entry, name)) is not None)
