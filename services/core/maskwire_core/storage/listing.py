"""Lists a namespace's images, page by page."""

import base64
import hashlib
from dataclasses import dataclass

from maskwire_core.errors import InvalidArgument
from maskwire_core.storage.embedding import StoredEmbedding
from maskwire_core.storage.store import Store

MAX_PAGE_SIZE = 1000
_PAGE_SIZE = 100
_MAX_STEPS = 20
"""SCAN steps of one call: it stays short even if few keys of a large store match."""


@dataclass(frozen=True)
class _Position:
    """Where the next page begins."""

    node: int = 0  # index of the node among `Connections.primaries`
    cursor: int = 0  # cursor of SCAN on this node
    mark: str = ""  # digest of the node's name: a cursor is void if another node has taken that place

    @property
    def token(self) -> str:
        return base64.urlsafe_b64encode(f"{self.node}.{self.cursor}.{self.mark}".encode()).decode()

    @classmethod
    def parse(cls, token: str) -> "_Position":
        if not token:
            return cls()
        try:
            node, cursor, mark = base64.urlsafe_b64decode(token.encode()).decode("ascii").split(".")
            position = cls(int(node), int(cursor), mark)
            if not (0 <= position.node < 1 << 14 and 0 <= position.cursor < 1 << 64):
                raise ValueError("out of range")
        except ValueError as error:
            raise InvalidArgument(
                "BAD_PAGE_TOKEN",
                "page_token is not one that a page returned; leave it out to begin",
                field="page_token",
            ) from error
        return position


def list_page(
    store: Store, namespace: str, prefix: str, size: int, token: str
) -> tuple[dict[str, StoredEmbedding], str]:
    """Returns a page of a namespace's images. Blocks.

    Args:
        store: The store.
        namespace: Tenant.
        prefix: What the image IDs begin with.
        size: Approximate number of images; 0 for the default of 100.
        token: Token that the previous page came with; empty for the first page.

    Returns:
        The images' embeddings by image ID, each with the milliseconds until the ID or the embedding expires; and the
        token of the next page, empty after the last page.

    Raises:
        InvalidArgument: BAD_PAGE_SIZE or BAD_PAGE_TOKEN.
    """
    if size > MAX_PAGE_SIZE:
        raise InvalidArgument("BAD_PAGE_SIZE", f"page_size is {size}; at most {MAX_PAGE_SIZE}", field="page_size")
    position = _Position.parse(token)
    with store.connections.commands():
        nodes = store.connections.primaries()
    images: dict[str, StoredEmbedding] = {}
    for _ in range(_MAX_STEPS):
        if position.node >= len(nodes):
            return images, ""
        node = nodes[position.node]
        mark = hashlib.sha256(node.encode()).hexdigest()[:8]
        cursor = position.cursor if position.mark == mark else 0  # cursors are valid on their own node only
        names, cursor = store.scan_aliases(namespace, prefix, node, cursor)
        images |= store.find_aliases(namespace, [name for name in dict.fromkeys(names) if name not in images])
        position = _Position(position.node, cursor, mark) if cursor else _Position(position.node + 1)
        if len(images) >= (size or _PAGE_SIZE):
            break
    return images, position.token if position.node < len(nodes) else ""
