"""On whose behalf calls are made."""

import os
from dataclasses import dataclass

from maskwire.errors import InvalidRequest

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Caller:
    """On whose behalf a call is made, and how long it may take.

    Attributes:
        token: Bearer token, which the servers judge; empty: none is sent.
        namespace: Tenant of the images; empty: the token's own, or "default".
        timeout_s: Longest time for one call in seconds, retries included.
        retry_s: How long a call is retried while a server is away or busy, in seconds.

    Raises:
        InvalidRequest: BAD_TOKEN: the token has characters that cannot be sent.
    """

    token: str = ""
    namespace: str = ""
    timeout_s: float = 60
    retry_s: float = 15

    def __post_init__(self) -> None:
        if not self.token.isascii() or " " in self.token or not self.token.isprintable():
            raise InvalidRequest("the token has blanks or other characters that no token has", "BAD_TOKEN", "token")

    @property
    def metadata(self) -> Metadata:
        """The metadata of a call that says who makes it."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()


def token_or_default(token: str | None) -> str:
    """The token itself; MASKWIRE_TOKEN's value where it is None."""
    return os.environ.get("MASKWIRE_TOKEN", "") if token is None else token
