"""The subcommands `maskwire store stats` and `maskwire store purge`, an entry point of the `maskwire` command."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskwire_core.command_line import AsJson, fail

if TYPE_CHECKING:
    from maskwire_core.storage.inventory import Inventory, Summary

app = typer.Typer(help="The store: what each namespace holds in it, and purging it.", no_args_is_help=True)

RedisUrl = Annotated[str, typer.Option(envvar="MASKWIRE_REDIS_URL", help="Address of the store.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(envvar="MASKWIRE_REDIS_PASSWORD_FILE", help="File with the password of the user in that address."),
]
_URL = "redis://localhost:6379/0"
_TIMEOUT_S = 10


@app.command()
def stats(redis_url: RedisUrl = _URL, redis_password_file: PasswordFile = None, as_json: AsJson = False) -> None:
    """Show how many images, embeddings, kept files, clips, tracks and bytes each namespace holds, and their age."""
    with _inventory(redis_url, redis_password_file) as inventory:
        found = inventory.summaries()
    if as_json:
        print(json.dumps({"namespaces": {name: asdict(summary) for name, summary in found.items()}}))
    else:
        _show(found)


@app.command()
def purge(
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only embeddings of this tenant.")] = None,
    older_than: Annotated[str | None, typer.Option(help="Only images encoded longer ago: 12h, 30d, ...")] = None,
    unreferenced: Annotated[
        bool, typer.Option("--unreferenced", help="Only embeddings that no image ID stands for.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="All embeddings of all tenants.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only show what would be deleted.")] = False,
    redis_url: RedisUrl = _URL,
    redis_password_file: PasswordFile = None,
) -> None:
    """Delete the embeddings that fulfil all conditions given, and image IDs and files whose embedding is gone then."""
    from rich.console import Console
    from rich.progress import track

    from maskwire_core import durations
    from maskwire_core.storage.inventory import summarize

    if not (namespace or older_than or unreferenced or everything):
        fail("say what: --namespace, --older-than, --unreferenced, or --all")
    try:
        age_s = durations.seconds(older_than) if older_than else None
    except ValueError as error:
        fail(error)
    with _inventory(redis_url, redis_password_file) as inventory:
        chosen = inventory.select(namespace, age_s, unreferenced)
        if not yes:
            _show(summarize(chosen))
            print("nothing was deleted; add --yes to delete this", file=sys.stderr)
            return
        console = Console(stderr=True)
        deleted = sum(1 for _ in track(inventory.delete(chosen), "deleting", total=len(chosen), console=console))
        names = inventory.delete_dangling_aliases(namespace)
        inventory.delete_dangling_sources(namespace)
    print(f"{deleted} embeddings of {_size(sum(each.nbytes for each in chosen))} deleted, {names} names forgotten")


@contextmanager
def _inventory(redis_url: str, password_file: Path | None) -> "Iterator[Inventory]":
    """Opens the store's inventory. Errors of the store, in the body too, end the command."""
    from maskwire_core.errors import ServiceError
    from maskwire_core.storage.inventory import Inventory
    from maskwire_core.storage.store import open_store

    store = open_store(redis_url, _TIMEOUT_S, password_file)
    try:
        yield Inventory(store)
    except ServiceError as error:
        fail(f"{error} (store at {store.address})")
    finally:
        store.close()


def _show(found: "Mapping[str, Summary]") -> None:
    from rich.console import Console
    from rich.table import Column, Table

    # Names are shown whole; other columns wrap. What no namespace has gets no column: all of them exceed 80 characters.
    several = {
        "files": any(each.sources for each in found.values()),
        "clips": any(each.clips for each in found.values()),
        "tracks": any(each.tracks for each in found.values()),
    }
    shown = [title for title, is_stored in several.items() if is_stored]
    columns = ("images", "embeddings", "size", "oldest", "newest", *shown)
    table = Table(Column("namespace", no_wrap=True), *(Column(title, overflow="fold") for title in columns))
    for name, each in found.items():
        sizes = str(each.images), str(each.embeddings), _size(each.nbytes)
        pairs = (each.sources, each.source_bytes), (each.clips, each.clip_bytes), (each.tracks, each.track_bytes)
        more = (_counted(*pair) for pair, is_stored in zip(pairs, several.values(), strict=True) if is_stored)
        table.add_row(name, *sizes, _when(each.oldest), _when(each.newest), *more)
    Console().print(table)


def _size(nbytes: int) -> str:
    return f"{nbytes / (1 << 20):.1f} MiB"


def _counted(count: int, nbytes: int) -> str:
    return f"{count} of {_size(nbytes)}" if count else ""


def _when(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S") if seconds is not None else ""
