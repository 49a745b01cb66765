"""Who is calling: what the call that runs may see and use."""

from contextvars import ContextVar

from maskwire.token_bucket import TokenBucket

from maskwire_core import names
from maskwire_core.errors import PermissionDenied, ResourceExhausted
from maskwire_core.tenancy.tokens import ANY_NAMESPACE, RIGHTS, Token

_NOWHERE = "~"
"""A namespace that no request can name, and in which nothing is ever stored. Foreign names are looked up in it: by the
same steps, and with the same answer, as names that nobody has given."""


class Caller:
    """Who holds a token.

    Args:
        token: Its entry.
    """

    def __init__(self, token: Token) -> None:
        self.token = token
        self._requests, self._encodes, self._bytes = (
            None if rate is None else TokenBucket(rate, max(1, rate * token.burst_s))
            for rate in (token.requests_per_s, token.encodes_per_s, token.bytes_per_s)
        )

    def reading(self, namespace: str) -> str:
        """The namespace in which a request looks for what is there.

        Raises:
            InvalidArgument: It is no namespace.
        """
        return self._find(namespace) or _NOWHERE

    def writing(self, namespace: str) -> str:
        """The namespace in which a request stores.

        Raises:
            InvalidArgument: It is no namespace.
            PermissionDenied: It is not the token's.
        """
        found = self._find(namespace)
        if found is None:
            raise PermissionDenied(
                "NAMESPACE_DENIED", f"the token is not for the namespace {namespace!r}", field="namespace"
            )
        return found

    def charge(self, requests: int = 0, encodes: int = 0, received_bytes: int = 0) -> None:
        """Takes from what the token may use.

        Raises:
            ResourceExhausted: RATE_LIMITED; nothing was taken.
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
        """The full name of a namespace; None if it is not the token's."""
        name = names.namespace(namespace)
        if ANY_NAMESPACE in self.token.namespaces:
            return name
        if not namespace:
            return self.token.namespaces[0]
        return name if name in self.token.namespaces else None


_EVERYBODY = Caller(Token(id="everybody", sha256="0" * 64, namespaces=(ANY_NAMESPACE,), rights=frozenset(RIGHTS)))
_current: ContextVar[Caller] = ContextVar("caller", default=_EVERYBODY)


def current() -> Caller:
    """Whose call runs, also in the tasks and threads that it started. Everybody's, where servers ask for no token."""
    return _current.get()


def enter(caller: Caller) -> None:
    """Makes what follows in this task a caller's."""
    _current.set(caller)
