"""The subcommands `maskwire models list`, `pull`, `verify` and `add`, an entry point of the `maskwire` command."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from maskwire.model_names import canonical

from maskwire_core.command_line import AsJson, fail

if TYPE_CHECKING:
    from maskwire_core.models.registry import AddedModel, PublishedModel

app = typer.Typer(
    help="Models: list them, download published checkpoints, verify files, add models of your own.",
    no_args_is_help=True,
)

Folder = Annotated[Path, typer.Option("--models", envvar="MASKWIRE_MODELS", help="Folder of checkpoints.")]
_FOLDER = Path("~/.cache/maskwire/models")


@app.command("list")
def list_models(context: typer.Context, folder: Folder = _FOLDER, as_json: AsJson = False) -> None:
    """Show all models: published, added, and the demo model; which of them are here, and which are being served."""
    from rich.console import Console
    from rich.table import Table

    from maskwire_core.models import registry

    folder = folder.expanduser()
    try:
        added = {own.name: Path(own.checkpoint) for own in registry.all_added(folder)}
    except registry.ModelError as error:
        fail(error, as_json)
    published = registry.PUBLISHED.values()
    rows: list[dict[str, Any]] = [
        {"name": registry.DEMO, "kind": "in the package", "here": True},
        *(_row(model.name, "published", folder / f"{model.name}.pt", model.size_bytes) for model in published),
        *(_row(name, "added", path, path.stat().st_size if path.exists() else None) for name, path in added.items()),
    ]
    # The maskwire command knows which servers to ask.
    served: dict[str, str] = context.obj() if callable(context.obj) else {}
    for row in rows:
        row["served"] = row["name"] in served
    if as_json:
        print(json.dumps({"models": rows}))
        return
    table = Table("model", "kind", "size", "status", box=None)
    for row in rows:
        megabytes = f"{row['size_bytes'] / 1e6:.0f} MB" if row.get("size_bytes") else ""
        missing = "not here" if row["kind"] == "published" else "its file is gone"
        status = f"served now{served[row['name']]}" if row["served"] else "here" if row["here"] else missing
        table.add_row(row["name"], row["kind"], megabytes, status)
    for name in served:
        if name not in {row["name"] for row in rows}:
            table.add_row(name, "", "", f"served now{served[name]}")
    Console().print(table)
    print("Get one:   maskwire models pull NAME", file=sys.stderr)
    print("Serve it:  maskwire up --model NAME", file=sys.stderr)
    print(f"Files are in {folder}", file=sys.stderr)


def _row(name: str, kind: str, path: Path, size_bytes: int | None) -> dict[str, Any]:
    return {"name": name, "kind": kind, "here": path.exists(), "path": str(path), "size_bytes": size_bytes}


@app.command()
def pull(
    name: Annotated[
        str, typer.Argument(help="A published model, such as sam2.1_hiera_tiny or hiera_tiny, or one added by address.")
    ],
    mirror: Annotated[
        str | None,
        typer.Option(
            envvar="MASKWIRE_MIRROR",
            help="Address of a folder that has the file under its own name, instead of the publisher's.",
        ),
    ] = None,
    folder: Folder = _FOLDER,
) -> None:
    """Download a checkpoint. Interrupted downloads are resumed; size and SHA-256 are verified."""
    from maskwire.suggest import no_such

    from maskwire_core.models import registry
    from maskwire_core.models.fetching import fetch

    folder = folder.expanduser()
    try:
        own = {model.name: model for model in registry.all_added(folder) if model.url is not None}
        model = registry.PUBLISHED.get(canonical(name)) or own.get(name)
        if model is None:
            fail(no_such("model to download", name, (*registry.PUBLISHED, *own)))
        path = fetch(model, folder, mirror)
    except registry.ModelError as error:
        fail(error)
    print(f"{path}: {model.name}, SHA-256 as published. Serve it with: maskwire up --model {model.name}")


@app.command()
def verify(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL|FILE]", help="A model, or a checkpoint file; by default all models here."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The model whose checkpoint FILE should be; by default its file name says.")
    ] = None,
    folder: Folder = _FOLDER,
) -> None:
    """Verify that checkpoints are what their names say, as published or as when they were added.

    Added models are also loaded once, as an encoder loads them.
    """
    from maskwire_core.models import registry
    from maskwire_core.models.check import check_loading

    try:
        for path, model in _to_verify(what, name, folder.expanduser()):
            registry.verify(path, model)
            if isinstance(model, registry.PublishedModel):
                print(f"{path}: {model.name}, SHA-256 as published")
            else:
                outcome = _outcome(check_loading(replace(model, checkpoint=str(path))))
                print(f"{path}: {model.name}, SHA-256 as when it was added; {outcome}")
    except registry.ModelError as error:
        fail(error)


def _to_verify(
    what: str | None, name: str | None, folder: Path
) -> "Sequence[tuple[Path, PublishedModel | AddedModel]]":
    """Returns the checkpoints to verify, each with the model that it should be; arguments as for `verify`.

    Raises:
        ModelError: There is no such file or model, or no model at all.
    """
    from maskwire.suggest import no_such

    from maskwire_core.models import registry

    known: dict[str, tuple[Path, PublishedModel | AddedModel]]
    known = {model.name: (folder / f"{model.name}.pt", model) for model in registry.PUBLISHED.values()}
    known |= {model.name: (Path(model.checkpoint), model) for model in registry.all_added(folder)}
    if what is None:
        here = [
            (path, model) for path, model in known.values() if path.is_file() or model.name not in registry.PUBLISHED
        ]
        if not here:
            raise registry.ModelError(f"no model is in {folder}; 'maskwire models pull NAME' gets one")
        return here
    path = Path(what)
    if path.is_file():
        wanted = name or path.stem
        if (found := known.get(canonical(wanted))) is None:
            raise registry.ModelError(
                f"{no_such('model', wanted, known)} Say with --name which model the file should be"
            )
        return [(path, found[1])]
    if name is None and (found := known.get(canonical(what))) is not None:
        return [found]
    if path.suffix in (".pt", ".pth", ".safetensors") or len(path.parts) > 1:
        raise registry.ModelError(f"no such file: {what}")
    raise registry.ModelError(f"{no_such('model', what, known)} ('maskwire models list' shows all)")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name under which to serve the model.")],
    config: Annotated[str, typer.Option(help="Its configuration: a YAML file, or one of the sam2 package.")],
    checkpoint: Annotated[
        str, typer.Option(metavar="FILE|URL", help="Its weights, .pt or .safetensors: a file, or an http(s) address.")
    ],
    sha256: Annotated[
        str | None, typer.Option(help="SHA-256 of the weights, in hex; needed for an address, checked for a file.")
    ] = None,
    folder: Folder = _FOLDER,
) -> None:
    """Add a model of your own: fine-tuned, or of another size.

    Files stay where they are. Weights at an address are downloaded now, and by 'maskwire up' wherever they are missing.
    The model is loaded once, so that what an encoder would refuse is refused here.
    """
    from maskwire_core.models import registry
    from maskwire_core.models.check import check_loading
    from maskwire_core.models.fetching import fetch

    folder = folder.expanduser()
    try:
        if "://" in checkpoint:
            if sha256 is None:
                raise registry.ModelError("--checkpoint with an address needs --sha256: 'sha256sum FILE' prints it")
            model = registry.describe_remote(name, config, checkpoint, sha256, folder)
            fetch(model, folder)
        else:
            model = registry.describe(name, config, Path(checkpoint))
            if sha256 is not None and model.sha256 != sha256.lower():
                raise registry.ModelError(f"{checkpoint} has SHA-256 {model.sha256} instead of --sha256 {sha256}")
        notes = check_loading(model)
        registry.add(folder, model)
    except registry.ModelError as error:
        fail(error)
    print(f"{model.name}: {model.checkpoint}, {_outcome(notes)}. Serve it with: maskwire up --model {model.name}")


def _outcome(notes: Sequence[str] | None) -> str:
    """Says, as a clause, what `check_loading` returned."""
    if notes is None:
        return "not loaded to check it, since no encoder is installed here (pip install 'maskwire-server[encoder]')"
    return "; ".join(["loaded to check it", *notes])
