"""maskwire store: stats, purge. Joined to the maskwire command by an entry point (pyproject.toml)."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from maskwire_core.storage.inventory import Stored, Summary
    from maskwire_core.storage.store import Store

app = typer.Typer(help="The store: what it holds of whom, and clearing it out.", no_args_is_help=True)

RedisUrl = Annotated[str, typer.Option(envvar="MASKWIRE_REDIS_URL", help="Address of the store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
_URL = "redis://localhost:6379/0"
_TIMEOUT_S = 10


def _fail(error: object) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


@app.command()
def stats(redis_url: RedisUrl = _URL, as_json: AsJson = False) -> None:
    """Show for each namespace how many images, embeddings and bytes it has, and how old they are."""
    from maskwire_core.errors import ServiceError
    from maskwire_core.storage.inventory import Inventory

    store = _open(redis_url)
    try:
        found = Inventory(store).summaries()
    except ServiceError as error:
        _fail(f"{error} (store at {store.address})")
    finally:
        store.close()
    if as_json:
        print(json.dumps({"namespaces": {name: asdict(summary) for name, summary in found.items()}}))
    else:
        _show(found)


@app.command()
def purge(
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only what is this tenant's.")] = None,
    older_than: Annotated[str | None, typer.Option(help="Only what was encoded longer ago: 12h, 30d, ...")] = None,
    unreferenced: Annotated[bool, typer.Option("--unreferenced", help="Only what no name stands for.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="All embeddings of all tenants.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete; without it, only what would be deleted is shown.")
    ] = False,
    redis_url: RedisUrl = _URL,
) -> None:
    """Delete embeddings that are all of what is asked for, and the names that then stand for nothing."""
    from rich.console import Console
    from rich.progress import track

    from maskwire_core import durations
    from maskwire_core.errors import ServiceError
    from maskwire_core.storage.inventory import Inventory

    if not (namespace or older_than or unreferenced or everything):
        _fail("say what: --namespace, --older-than, --unreferenced, or --all")
    try:
        age_s = durations.seconds(older_than) if older_than else None
    except ValueError as error:
        _fail(error)
    store = _open(redis_url)
    inventory = Inventory(store)
    try:
        chosen = inventory.select(namespace, age_s, unreferenced)
        if not yes:
            _show(_summarised(chosen))
            print("nothing was deleted; add --yes to delete this", file=sys.stderr)
            return
        console = Console(stderr=True)
        gone = sum(1 for _ in track(inventory.delete(chosen), "deleting", total=len(chosen), console=console))
        names = inventory.forget_names(namespace)
    except ServiceError as error:
        _fail(f"{error} (store at {store.address})")
    finally:
        store.close()
    print(f"{gone} embeddings of {_size(sum(each.nbytes for each in chosen))} deleted, {names} names forgotten")


def _open(url: str) -> "Store":
    from maskwire_core.errors import InvalidArgument
    from maskwire_core.storage.store import Store

    try:
        return Store(url, _TIMEOUT_S)
    except InvalidArgument as error:
        _fail(error)


def _summarised(chosen: "Iterable[Stored]") -> "dict[str, Summary]":
    from maskwire_core.storage.inventory import Summary

    found: dict[str, Summary] = {}
    for each in chosen:
        found.setdefault(each.namespace, Summary()).add(each)
    return found


def _show(found: "dict[str, Summary]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("namespace", "images", "embeddings", "size", "oldest", "newest")
    for name, each in found.items():
        row = (name, str(each.images), str(each.embeddings), _size(each.nbytes), _when(each.oldest), _when(each.newest))
        table.add_row(*row)
    Console().print(table)


def _size(nbytes: int) -> str:
    return f"{nbytes / (1 << 20):.1f} MiB"


def _when(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S") if seconds is not None else ""
