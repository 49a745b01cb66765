"""Who makes a call: the namespaces that they may use, and their rate limits."""

from maskwire.token_bucket import TokenBucket

from maskwire_core import names
from maskwire_core.errors import PermissionDenied, ResourceExhausted
from maskwire_core.tenancy.tokens import ANY_NAMESPACE, RIGHTS, Token

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

    def charge(self, requests: int = 0, encodes: int = 0, received_bytes: int = 0) -> None:
        """Takes from the token's rate limits: all of what is given, or nothing.

        Args:
            requests: Number of calls and prompts.
            encodes: Number of images to encode.
            received_bytes: Bytes of image files and requests.

        Raises:
            ResourceExhausted: RATE_LIMITED.
        """
        wanted = [
            (bucket, amount)
            for bucket, amount in ((self._requests, requests), (self._encodes, encodes), (self._bytes, received_bytes))
            if bucket is not None and amount
        ]
        wait_s = max((bucket.wait_s(amount) for bucket, amount in wanted), default=0.0)
        if wait_s:
            raise ResourceExhausted(
                "RATE_LIMITED", f"the token's rate is used up; try again in {wait_s:.3g} s", retry_after_s=wait_s
            )
        for bucket, amount in wanted:
            bucket.take(amount)

    def _find(self, namespace: str) -> str | None:
        """Returns a namespace's full name; None if the token is not for it."""
        name = names.namespace(namespace)
        if ANY_NAMESPACE in self.token.namespaces:
            return name
        if not namespace:
            return self.token.namespaces[0]
        return name if name in self.token.namespaces else None


EVERYBODY = Caller(Token(id="everybody", sha256="0" * 64, namespaces=(ANY_NAMESPACE,), rights=frozenset(RIGHTS)))
"""The caller of all calls, if the server requires no tokens."""
