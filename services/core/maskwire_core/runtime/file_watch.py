"""Files that are read again when they have changed."""

from pathlib import Path


class FileWatch:
    """Notices that one of some files has changed.

    Args:
        paths: The files. Links are followed: Kubernetes replaces links.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._seen: list[tuple[int, int, int]] | None = []

    def changed(self) -> bool:
        """Whether a file was changed, replaced or removed since the last call; the first answer is yes."""
        before = self._seen
        try:
            found = [path.stat() for path in self._paths]
            self._seen = [(each.st_mtime_ns, each.st_size, each.st_ino) for each in found]
        except OSError:
            self._seen = None  # whoever reads it says why
        return self._seen != before
