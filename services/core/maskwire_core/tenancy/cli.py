"""The subcommands `maskwire token new`, `list` and `revoke`, an entry point of the `maskwire` command."""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskwire_core.command_line import AsJson, fail

if TYPE_CHECKING:
    from maskwire_core.tenancy.tokens import Token

app = typer.Typer(
    help="Bearer tokens: who may do what. Servers started with --tokens FILE notice changes within a second.",
    no_args_is_help=True,
)

File = Annotated[
    Path, typer.Option("--tokens", envvar="MASKWIRE_TOKENS", help="Tokens file; it holds digests, not tokens.")
]
_FILE = Path("tokens.json")
_DEFAULT_RIGHTS = ["encode", "segment", "read", "delete"]


@app.command()
def new(
    namespace: Annotated[
        list[str],
        typer.Option(
            "--namespace",
            "-n",
            help="Namespace in which the token is valid; '*' for all. Repeatable; the first is the default.",
        ),
    ],
    right: Annotated[
        list[str],
        typer.Option("--right", "-r", help="What the token allows: encode, segment, read, delete, stats. Repeatable."),
    ] = _DEFAULT_RIGHTS,
    expires: Annotated[
        str | None, typer.Option(help="When the token expires: in 12h, 30d, ...; never by default.")
    ] = None,
    note: Annotated[str, typer.Option(help="Comment for people, such as whose token it is.")] = "",
    requests_per_s: Annotated[float | None, typer.Option(help="Calls and prompts per second.")] = None,
    encodes_per_s: Annotated[float | None, typer.Option(help="Images to encode per second.")] = None,
    bytes_per_s: Annotated[float | None, typer.Option(help="Bytes of image files and requests per second.")] = None,
    burst_s: Annotated[float, typer.Option(help="Seconds' worth of these rates that may be used at once.")] = 5,
    max_image_bytes: Annotated[int | None, typer.Option(help="Largest image file, in bytes.")] = None,
    quota_bytes: Annotated[int | None, typer.Option(help="Bytes of embeddings that its namespace may store.")] = None,
    clips_bytes: Annotated[int | None, typer.Option(help="Bytes of clips that its namespace may store.")] = None,
    max_tracks: Annotated[int | None, typer.Option(help="Tracks that it may have open at once.")] = None,
    ttl: Annotated[str | None, typer.Option(help="How long embeddings are kept: 90s, 12h, ...")] = None,
    file: File = _FILE,
) -> None:
    """Issue a token and print it, this once: it is stored nowhere. Rates and open tracks are per server process."""
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
            clips_bytes=clips_bytes,
            max_tracks=max_tracks,
            ttl_s=int(durations.seconds(ttl)) if ttl else None,
        )
        tokens.change_tokens(file, lambda entries: [*entries, entry])
    except (tokens.TokenError, ValueError) as error:
        fail(error)
    print(text)
    print(f"{file}: token {entry.id} for {', '.join(entry.namespaces)}. Clients: MASKWIRE_TOKEN=...", file=sys.stderr)


@app.command("list")
def list_tokens(file: File = _FILE, as_json: AsJson = False) -> None:
    """Show the tokens' IDs, namespaces, rights and limits. The tokens themselves are not known."""
    from rich.console import Console
    from rich.table import Column, Table

    from maskwire_core.tenancy import tokens

    try:
        entries = tokens.read_tokens(file)
    except tokens.TokenError as error:
        fail(error)
    if as_json:
        print(json.dumps({"tokens": [entry.model_dump(mode="json", exclude={"sha256"}) for entry in entries]}))
        return
    # An id is copied into 'revoke', so a narrow terminal must not shorten it.
    table = Table(Column("id", min_width=12, no_wrap=True), "namespaces", "rights", "expires", "limits", "note")
    for entry in entries:
        rights = ", ".join(right for right in tokens.RIGHTS if right in entry.rights)
        table.add_row(entry.id, ", ".join(entry.namespaces), rights, _expiry(entry), _limits(entry), entry.note)
    Console().print(table)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="ID", help="The token's ID, as 'maskwire token list' shows it.")],
    file: File = _FILE,
) -> None:
    """Remove a token. Calls with it end within seconds, open streams included."""
    from maskwire_core.tenancy import tokens

    def without(entries: "list[Token]") -> "list[Token]":
        left = [entry for entry in entries if entry.id != name]
        if len(left) == len(entries):
            raise tokens.TokenError(f"{file} has no token {name!r}; see 'maskwire token list'")
        return left

    try:
        tokens.change_tokens(file, without)
    except tokens.TokenError as error:
        fail(error)
    print(f"{file}: token {name} is revoked", file=sys.stderr)


def _expiry(entry: "Token") -> str:
    if entry.expires_at is None:
        return "never"
    return "expired" if entry.expired else entry.expires_at.isoformat(" ", "minutes")


def _limits(entry: "Token") -> str:
    names = (
        *("requests_per_s", "encodes_per_s", "bytes_per_s"),
        *("max_image_bytes", "quota_bytes", "clips_bytes", "max_tracks", "ttl_s"),
    )
    return "\n".join(f"{name} {value:g}" for name in names if (value := getattr(entry, name)) is not None)
