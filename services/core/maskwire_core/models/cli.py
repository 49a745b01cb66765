"""maskwire models: list, pull, verify, add. Joined to the maskwire command by an entry point (pyproject.toml)."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from maskwire_core.models import registry

app = typer.Typer(
    help="Models: which there are, getting published checkpoints, checking files, making your own known.",
    no_args_is_help=True,
)

Folder = Annotated[
    Path,
    typer.Option("--models", envvar="MASKWIRE_MODELS", help="Folder of checkpoints."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
_FOLDER = Path("~/.cache/maskwire/models")


def _fail(error: Exception, as_json: bool = False) -> None:
    if as_json:
        print(json.dumps({"error": {"message": str(error)}}))
    else:
        print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


@app.command("list")
def list_models(context: typer.Context, folder: Folder = _FOLDER, as_json: AsJson = False) -> None:
    """Show all models: published, added, and the demonstration; which of them are here, and which are being served."""
    from rich.console import Console
    from rich.table import Table

    from maskwire_core.models import registry

    folder = folder.expanduser()
    rows: list[dict[str, Any]] = [{"name": registry.DEMO, "kind": "in the package", "here": True}]
    for model in registry.PUBLISHED.values():
        path = folder / f"{model.name}.pt"
        size = model.size_bytes
        rows.append(
            {"name": model.name, "kind": "published", "here": path.exists(), "path": str(path), "size_bytes": size}
        )
    try:
        for own in registry.all_added(folder):
            path = Path(own.checkpoint)
            size = path.stat().st_size if path.exists() else None
            rows.append(
                {"name": own.name, "kind": "added", "here": path.exists(), "path": str(path), "size_bytes": size}
            )
    except registry.ModelError as error:
        _fail(error, as_json)
    served = context.obj() if callable(context.obj) else []  # the maskwire command knows whom to ask
    for row in rows:
        row["served"] = row["name"] in served
    if as_json:
        print(json.dumps({"models": rows}))
        return
    table = Table("model", "kind", "size", "status", box=None)
    for row in rows:
        megabytes = f"{row['size_bytes'] / 1e6:.0f} MB" if row.get("size_bytes") else ""
        missing = "not here" if row["kind"] == "published" else "its file is gone"
        state = "served now" if row["served"] else "here" if row["here"] else missing
        table.add_row(row["name"], row["kind"], megabytes, state)
    for name in served:
        if name not in {row["name"] for row in rows}:
            table.add_row(name, "", "", "served now")
    Console().print(table)
    print("Get one:   maskwire models pull NAME", file=sys.stderr)
    print("Serve it:  maskwire up --model NAME", file=sys.stderr)
    print(f"Files are in {folder}", file=sys.stderr)


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="A published model, such as sam2.1_hiera_tiny or hiera_tiny.")],
    url: Annotated[str | None, typer.Option(help="Address of the file on a mirror.")] = None,
    folder: Folder = _FOLDER,
) -> None:
    """Download a published checkpoint. An interrupted download goes on where it ended; size and SHA-256 are checked."""
    from maskwire.suggest import no_such
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from maskwire_core.models import registry
    from maskwire_core.models.downloads import pull as download

    model = registry.PUBLISHED.get(registry.canonical(name))
    if model is None:
        _fail(registry.ModelError(f"{no_such('published model', name, registry.PUBLISHED)}"))
        return
    columns = (TextColumn(model.name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task("", total=model.size_bytes)
            path = download(
                model,
                folder.expanduser(),
                url=url,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
    except registry.ModelError as error:
        _fail(error)
    else:
        print(f"{path}: {model.name}, SHA-256 as published. Serve it with: maskwire up --model {model.name}")


@app.command()
def verify(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL|FILE]", help="A model, or a checkpoint file; all models that are here if none."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model that FILE should be; its name says if not given.")] = None,
    folder: Folder = _FOLDER,
) -> None:
    """Check that checkpoints are what their names say: a published model's, or what was added with 'models add'.

    Added models are also loaded once, as an encoder loads them.
    """
    from maskwire_core.models import check, registry

    folder = folder.expanduser()
    try:
        for path, model in _to_verify(what, name, folder):
            registry.verify(path, model)
            if isinstance(model, registry.PublishedModel):
                print(f"{path}: {model.name}, SHA-256 as published")
            else:
                checked = _checked(check.check(replace(model, checkpoint=str(path))))
                print(f"{path}: {model.name}, SHA-256 as when it was added; {checked}")
    except registry.ModelError as error:
        _fail(error)


def _to_verify(
    what: str | None, name: str | None, folder: Path
) -> "Iterator[tuple[Path, registry.PublishedModel | registry.AddedModel]]":
    """Checkpoint files, and what they should be.

    Raises:
        ModelError: There is no such file or model, or none at all.
    """
    from maskwire.suggest import no_such

    from maskwire_core.models import registry

    here: dict[str, tuple[Path, registry.PublishedModel | registry.AddedModel]]
    here = {each.name: (folder / f"{each.name}.pt", each) for each in registry.PUBLISHED.values()}
    added = {each.name: (Path(each.checkpoint), each) for each in registry.all_added(folder)}
    if what is None:
        found = [*(each for each in here.values() if each[0].is_file()), *added.values()]
        if not found:
            raise registry.ModelError(f"no model is in {folder}; 'maskwire models pull NAME' gets one")
        yield from found
        return
    path = Path(what)
    if not path.is_file():
        known = {**here, **added}
        if name is None and (found_here := known.get(registry.canonical(what))) is not None:
            yield found_here
            return
        if path.suffix in (".pt", ".pth", ".safetensors") or len(path.parts) > 1:
            raise registry.ModelError(f"no such file: {what}")
        raise registry.ModelError(f"{no_such('model', what, known)} ('maskwire models list' shows all)")
    wanted = name or path.stem
    model = registry.PUBLISHED.get(registry.canonical(wanted)) or registry.added(folder, wanted)
    if model is None:
        raise registry.ModelError(
            f"{no_such('model', wanted, {**here, **added})} Say with --name which model the file should be"
        )
    yield path, model


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name to serve it under.")],
    config: Annotated[str, typer.Option(help="Its configuration: a YAML file, or one of the sam2 package.")],
    checkpoint: Annotated[Path, typer.Option(help="Its weights: a .pt or .safetensors file.")],
    folder: Folder = _FOLDER,
) -> None:
    """Make a model of your own known: fine-tuned, or of another size. Its files stay where they are.

    It is loaded once, so that what an encoder would refuse is refused here.
    """
    from maskwire_core.models import check, registry

    try:
        model = registry.describe(name, config, checkpoint)
        notes = check.check(model)
        registry.add(folder.expanduser(), model)
    except registry.ModelError as error:
        _fail(error)
    else:
        print(f"{model.name}: {model.checkpoint}, {_checked(notes)}. Serve it with: maskwire up --model {model.name}")


def _checked(notes: Sequence[str] | None) -> str:
    """What checking a model found, as a clause."""
    if notes is None:
        return "not loaded to check it, since no encoder is installed here (pip install 'maskwire-server[encoder]')"
    return "; ".join(["loaded to check it", *notes])
