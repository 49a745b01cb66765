"""Resources of kinds that operators bring, against the definitions of those operators."""

from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml


class Definitions:
    """CustomResourceDefinitions.

    Args:
        folder: Has them as YAML files, as releases of operators do, or `kubectl get crd NAME -o yaml`.
    """

    def __init__(self, folder: Path) -> None:
        self._schemas: dict[tuple[str, str], Any] = {}
        for path in folder.glob("*.yaml"):
            for found in yaml.safe_load_all(path.read_text()):
                if found and found.get("kind") == "CustomResourceDefinition":
                    spec = found["spec"]
                    for version in spec["versions"]:
                        kind = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
                        self._schemas[kind] = version["schema"]["openAPIV3Schema"]

    def check(self, manifests: str) -> tuple[list[str], set[str]]:
        """Checks manifests, strictly: what a definition does not know is wrong.

        Args:
            manifests: YAML documents.

        Returns:
            What is wrong, and the kinds that have a definition here.
        """
        wrong, known = [], set()
        for resource in yaml.safe_load_all(manifests):
            kind = resource["apiVersion"], resource["kind"]
            if kind in self._schemas:
                known.add(resource["kind"])
                name = f"{resource['kind']} {resource['metadata']['name']}"
                validator = jsonschema_rs.Draft202012Validator(strict(self._schemas[kind]))
                wrong += [f"{name}: {_place(error)}{error.message}" for error in validator.iter_errors(resource)]
        return wrong, known


def strict(schema: Any) -> Any:
    """The same schema, in which objects have none but the named properties, unless it allows others."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict) and not open_ended:
        made["additionalProperties"] = False
    return made


def _place(error: Any) -> str:
    where = ".".join(map(str, error.instance_path))
    return f"{where}: " if where else ""
