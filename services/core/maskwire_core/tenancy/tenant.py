"""Who makes a call: the namespaces that they may use, and their rate limits."""

import hmac
import logging
from collections.abc import Mapping
from pathlib import Path

from maskwire.token_bucket import TokenBucket

from maskwire_core import names
from maskwire_core.errors import PermissionDenied, ResourceExhausted
from maskwire_core.runtime.file_watch import FileWatch
from maskwire_core.tenancy.tokens import ANY_NAMESPACE, RIGHTS, Token, TokenError, digest, read_tokens

log = logging.getLogger(__name__)

_NO_DIGEST = "0" * 64  # compared if a token has no entry, so that the comparison takes as long
_WINDOW_BYTES = 65_535  # HTTP/2's initial window of a stream
_NOWHERE = "~"
"""A namespace that no request can name, and in which nothing is ever stored. Foreign images are looked up in it: in the
same steps, and with the same answer, as images that do not exist."""


class Caller:
    """The holder of a token. Not safe to use from several threads.

    Args:
        token: The token's entry.
    """

    def __init__(self, token: Token) -> None:
        self.token = token
        self._requests, self._encodes, self._bytes = (
            None if rate is None else TokenBucket(rate, max(1, rate * token.burst_s))
            for rate in (token.requests_per_s, token.encodes_per_s, token.bytes_per_s)
        )

    @property
    def tenant(self) -> str:
        """On whose account the caller uses what tenants share: the first of the token's namespaces, as several tokens
        may be one tenant's. Without tokens everybody is the same, whatever namespace they name."""
        return self.token.namespaces[0]

    def reading(self, namespace: str) -> str:
        """Returns the namespace in which a request reads, given the one that it names (or "").

        Raises:
            InvalidArgument: BAD_NAMESPACE.
        """
        return self._find(namespace) or _NOWHERE

    def writing(self, namespace: str) -> str:
        """Returns the namespace in which a request writes, given the one that it names (or "").

        Raises:
            InvalidArgument: BAD_NAMESPACE.
            PermissionDenied: NAMESPACE_DENIED: the token is not for this namespace.
        """
        found = self._find(namespace)
        if found is None:
            raise PermissionDenied(
                "NAMESPACE_DENIED", f"the token is not for the namespace {namespace!r}", field="namespace"
            )
        return found

    def charge(self, requests: int = 0, encodes: int = 0, received_bytes: int = 0, announced_bytes: int = 0) -> None:
        """Takes from the token's rate limits: all of what is given, or nothing. But a refusal of what was received
        already does not make it free: only what flow control lets through before anybody can refuse it is.

        Args:
            requests: Number of calls and prompts.
            encodes: Number of images to encode.
            received_bytes: Bytes of requests that were received.
            announced_bytes: Bytes of image files that will be received.

        Raises:
            ResourceExhausted: RATE_LIMITED.
        """
        nbytes = received_bytes + announced_bytes
        wanted = [
            (bucket, amount)
            for bucket, amount in ((self._requests, requests), (self._encodes, encodes), (self._bytes, nbytes))
            if bucket is not None and amount
        ]
        wait_s = max((bucket.wait_s(amount) for bucket, amount in wanted), default=0.0)
        if wait_s:
            self.owe(max(0, received_bytes - _WINDOW_BYTES))
            raise rate_limited(wait_s)
        for bucket, amount in wanted:
            bucket.take(amount)

    def owe(self, received_bytes: int) -> float:
        """Takes bytes that came unasked from the token's rate, whether it has them or not.

        Returns:
            Seconds until the rate has made up for them; 0 if it had them.
        """
        if self._bytes is None or not received_bytes:
            return 0.0
        self._bytes.take(received_bytes)
        return self._bytes.wait_s(0)

    def _find(self, namespace: str) -> str | None:
        """Returns a namespace's full name; None if the token is not for it."""
        name = names.namespace(namespace)
        if ANY_NAMESPACE in self.token.namespaces:
            return name
        if not namespace:
            return self.token.namespaces[0]
        return name if name in self.token.namespaces else None


def rate_limited(wait_s: float) -> ResourceExhausted:
    return ResourceExhausted(
        "RATE_LIMITED", f"the token's rate is used up; try again in {wait_s:.3g} s", retry_after_s=wait_s
    )


EVERYBODY = Caller(Token(id="everybody", sha256=_NO_DIGEST, namespaces=(ANY_NAMESPACE,), rights=frozenset(RIGHTS)))
"""The caller of all calls, if the server requires no tokens."""


class Callers:
    """The holders of a file's tokens.

    Args:
        path: Path of the tokens file.

    Raises:
        TokenError: The file cannot be read now.

    Attributes:
        by_id: The callers by the ID of their token: the same ones until the token's entry changes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._watch = FileWatch(path)
        self.by_id: Mapping[str, Caller] = {}
        self._read()

    def refresh(self) -> None:
        """Reads the file again if it has changed. If it cannot be read, the tokens that were read before stay valid.
        Blocks."""
        try:
            self._read()
        except TokenError as error:
            log.error("%s; the tokens that were read before stay valid", error)

    def find(self, text: str) -> Caller | None:
        """Returns a token's holder; None if it is invalid or expired. Unknown IDs take as long as wrong secrets."""
        parts = text.split("_", 2)
        caller = self.by_id.get(parts[1]) if len(parts) == 3 else None
        equal = hmac.compare_digest(digest(text), caller.token.sha256 if caller is not None else _NO_DIGEST)
        return caller if caller is not None and equal and not caller.token.expired else None

    def _read(self) -> None:
        if not self._watch.changed():
            return
        before, after = self.by_id, {}
        for token in read_tokens(self._path):
            caller = before.get(token.id)
            after[token.id] = caller if caller is not None and caller.token == token else Caller(token)
        self.by_id = after
        log.info("%s: %d tokens", self._path, len(after))
