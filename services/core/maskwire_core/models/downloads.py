"""Downloads checkpoints: resumable, verified, atomic."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
from maskwire.addresses import is_loopback, through_proxy
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from maskwire_core.models.registry import AddedModel, ModelError, PublishedModel, checkpoint_path, verify

_TIMEOUT = httpx.Timeout(30, connect=10)
_ATTEMPTS = 4


def download(
    model: PublishedModel | AddedModel,
    folder: Path,
    *,
    mirror: str | None = None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    pause_s: float = 0.5,
) -> Path:
    """Downloads a checkpoint into a folder, unless it is there already.

    An interrupted download is resumed where it ended, by this call and by later ones. The file gets its name only when
    its size and SHA-256 have been verified. Of several processes that want one file, one downloads it.

    Args:
        model: The model whose checkpoint to download; it must have an address.
        folder: The models folder.
        mirror: Address of a folder with a file of the same name, to be used instead of the model's own address.
        progress: Called with the number of bytes downloaded, and of bytes in all if known.
        pause_s: First pause between attempts, in seconds; up to as much again is added at random.

    Returns:
        Path of the checkpoint.

    Raises:
        ModelError: The download failed, or the file is not the one that the model's digest names.
    """
    target = checkpoint_path(model, folder)
    address = f"{mirror.rstrip('/')}/{target.name}" if mirror is not None else str(model.url)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with _claimed(target) as partial:
            if not target.exists():
                _download(model, address, partial, progress, pause_s)
                partial.replace(target)
                return target
    verify(target, model)
    return target


def _download(
    model: PublishedModel | AddedModel,
    address: str,
    partial: Path,
    progress: Callable[[int, int | None], None],
    pause_s: float,
) -> None:
    """Downloads what is missing of a file, and verifies the whole; arguments and errors as for `download`."""
    attempts = Retrying(
        retry=retry_if_exception(_is_passing),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_exponential_jitter(multiplier=pause_s, max=10, jitter=pause_s),
        reraise=True,
    )
    try:
        attempts(_fetch, address, partial, model.size_bytes, progress)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        proxy = through_proxy(address) if isinstance(error, httpx.TransportError) else ""
        raise ModelError(
            f"cannot get {address}: {str(error) or type(error).__name__}{proxy}. What has arrived is kept, and the "
            f"same command goes on from there. Without a network, put the file at {partial.with_suffix('')}; --mirror "
            f"URL names another place that has {partial.stem}"
        ) from error
    try:
        verify(partial, model)
    except ModelError as error:
        partial.unlink()
        raise ModelError(f"what {address} sent is not {model.name}: {error}") from error


@contextlib.contextmanager
def _claimed(target: Path) -> Iterator[Path]:
    """Yields the path for what has arrived of a file, which no other process writes to meanwhile.

    Nothing is left of it if nothing has arrived.
    """
    partial = target.with_name(f"{target.name}.part")
    while True:
        with partial.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(partial, file.fileno()):  # who had it before us is done with it
                continue
            try:
                yield partial
            finally:
                if partial.exists() and not partial.stat().st_size:
                    partial.unlink()
            return


def _is_at(path: Path, descriptor: int) -> bool:
    """Returns whether an open file is the one at a path: it may have been renamed or removed since it was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _is_passing(error: BaseException) -> bool:
    """Whether another attempt may succeed."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.is_server_error
    return isinstance(error, httpx.TransportError)


def _fetch(address: str, partial: Path, size: int | None, progress: Callable[[int, int | None], None]) -> None:
    done = partial.stat().st_size
    if size is not None and done >= size:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    direct = is_loopback(httpx.URL(address).host)  # no proxy leads to this machine
    with (
        httpx.Client(timeout=_TIMEOUT, follow_redirects=True, trust_env=not direct) as client,
        client.stream("GET", address, headers=headers) as response,
    ):
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the file is complete already; its digest is verified later
        if response.is_error:
            answered = f"the server answered {response.status_code} {response.reason_phrase}"
            raise httpx.HTTPStatusError(answered, request=response.request, response=response)
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
        done = done if resumed else 0
        length = int(response.headers.get("Content-Length", 0))
        total = size or (done + length if length else None)
        with partial.open("ab" if resumed else "wb") as file:
            for block in response.iter_raw():  # unbuffered, so that nothing is lost if the connection breaks
                file.write(block)
                done += len(block)
                progress(done, total)
