"""Gets checkpoints onto this machine, with a progress bar, before servers start."""

from collections.abc import Sequence
from pathlib import Path

from maskwire.errors import MaskwireError
from maskwire.model_names import canonical
from maskwire.suggest import no_such
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from maskwire_core.models import registry
from maskwire_core.models.downloads import download
from maskwire_core.models.registry import AddedModel, ModelError, PublishedModel, checkpoint_path


def fetch(model: PublishedModel | AddedModel, folder: Path, mirror: str | None = None) -> Path:
    """Downloads a model's checkpoint unless it is there, and shows how far it is on standard error.

    Args:
        model: The model; it must have an address.
        folder: The models folder.
        mirror: Address of a folder that has the file, instead of the model's own address.

    Returns:
        Path of the checkpoint.

    Raises:
        ModelError: The download failed, or the file is not the one that the model's digest names.
    """
    columns = (TextColumn(model.name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=model.size_bytes)

        def show(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        return download(model, folder, mirror=mirror, progress=show)


def missing(names: Sequence[str], folder: Path) -> list[PublishedModel | AddedModel]:
    """Finds the models whose checkpoints can be downloaded and are not on this machine.

    Args:
        names: Names of models, as users write them.
        folder: The models folder.

    Raises:
        MaskwireError: There is no model of such a name (UNKNOWN_MODEL), or its description is damaged (NO_WEIGHTS).
    """
    try:
        models = [_find(name, folder) for name in names if canonical(name) != registry.DEMO]
    except ModelError as error:
        raise MaskwireError(str(error), "NO_WEIGHTS", "--model") from error
    return [model for model in models if model.url is not None and not checkpoint_path(model, folder).exists()]


def _find(name: str, folder: Path) -> PublishedModel | AddedModel:
    wanted = canonical(name)
    if (model := registry.PUBLISHED.get(wanted) or registry.added(folder, wanted)) is not None:
        return model
    known = [registry.DEMO, *registry.PUBLISHED, *(own.name for own in registry.all_added(folder))]
    raise MaskwireError(
        f"{no_such('model', name, known)} ('maskwire models list' shows all); register a model of your own "
        "with 'maskwire models add', or give it with --config and --checkpoint",
        "UNKNOWN_MODEL",
        "--model",
    )


def fetch_all(
    models: Sequence[PublishedModel | AddedModel], folder: Path, *, mirror: str | None, offline: bool
) -> None:
    """Downloads the checkpoints of models, one after the other, and says so.

    Args:
        models: The models.
        folder: The models folder.
        mirror: Address of a folder that has the files, instead of the models' own addresses.
        offline: Refuses instead.

    Raises:
        MaskwireError: A checkpoint cannot be got (NO_WEIGHTS).
    """
    for model in models:
        path = checkpoint_path(model, folder)
        if offline:
            raise MaskwireError(
                f"the weights of {model.name} are not at {path}, and --offline downloads nothing: put the file there, "
                "or name it with --checkpoint",
                "NO_WEIGHTS",
                "--model",
            )
        Console(stderr=True, highlight=False).print(
            f"The weights of {model.name} are not here yet: downloading them from {mirror or model.url} to {path}. "
            "Ctrl-C keeps what has arrived.",
            soft_wrap=True,
        )
        try:
            fetch(model, folder, mirror)
        except ModelError as error:
            raise MaskwireError(str(error), "NO_WEIGHTS", "--model") from error
