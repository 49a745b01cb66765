"""Gives hatchling the dependencies of maskwire-server, among them maskwire in the version that is being built."""

from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Dependencies(MetadataHookInterface):
    """Adds the pinned client to the dependencies that pyproject.toml lists for this hook."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Sets `dependencies` in the `[project]` table, whose version hatchling has determined before."""
        metadata["dependencies"] = [f"maskwire=={metadata['version']}", *self.config["dependencies"]]
