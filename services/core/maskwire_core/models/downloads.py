"""Downloads published checkpoints: resumable, verified, atomic."""

from collections.abc import Callable
from pathlib import Path

import httpx
from maskwire.addresses import is_loopback
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from maskwire_core.models.registry import ModelError, PublishedModel, verify

_TIMEOUT_S = 30
_ATTEMPTS = 4


def download(
    model: PublishedModel,
    folder: Path,
    *,
    url: str | None = None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    pause_s: float = 0.5,
) -> Path:
    """Downloads a checkpoint into a folder, unless it is there already.

    An interrupted download is resumed where it ended, by this call and by later ones. The file gets its name only when
    its size and SHA-256 have been verified.

    Args:
        model: The model whose checkpoint to download.
        folder: Folder for the checkpoint, NAME.pt.
        url: Address of the file on a mirror; None for the publisher's.
        progress: Called with the number of bytes downloaded, and of bytes in all if known.
        pause_s: First pause between attempts, in seconds.

    Returns:
        Path of the checkpoint.

    Raises:
        ModelError: The download failed, or the file is not the published one.
    """
    target, partial = folder / f"{model.name}.pt", folder / f"{model.name}.pt.part"
    if target.exists():
        verify(target, model)
        return target
    folder.mkdir(parents=True, exist_ok=True)
    address = url or model.url
    attempts = Retrying(
        retry=retry_if_exception(_is_passing),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_exponential_jitter(multiplier=pause_s, max=10),
        reraise=True,
    )
    try:
        attempts(_fetch, address, partial, model, progress)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ModelError(
            f"cannot get {address}: {str(error) or type(error).__name__}. What has arrived is kept, and the same "
            "command goes on from there. "
            f"Without a network, put the file at {target}, or name a mirror's address of it with --url"
        ) from error
    try:
        verify(partial, model)
    except ModelError as error:
        partial.unlink()
        raise ModelError(f"what {address} sent is not {model.name}: {error}") from error
    partial.replace(target)
    return target


def _is_passing(error: BaseException) -> bool:
    """Whether another attempt may succeed."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.is_server_error
    return isinstance(error, httpx.TransportError)


def _fetch(address: str, partial: Path, model: PublishedModel, progress: Callable[[int, int | None], None]) -> None:
    done = partial.stat().st_size if partial.exists() else 0
    if model.size_bytes is not None and done >= model.size_bytes:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    direct = is_loopback(httpx.URL(address).host)  # no proxy leads to this machine
    with (
        httpx.Client(timeout=_TIMEOUT_S, follow_redirects=True, trust_env=not direct) as client,
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
        total = model.size_bytes or (done + length if length else None)
        with partial.open("ab" if resumed else "wb") as file:
            for block in response.iter_raw():  # unbuffered, so that nothing is lost if the connection breaks
                file.write(block)
                done += len(block)
                progress(done, total)
