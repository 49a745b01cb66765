"""The served model that answers for the SAM 2 version that a caller names."""

from collections.abc import Sequence

from maskwire.model_names import canonical
from maskwire.suggest import model_not_served
from maskwire.v1 import encoder_pb2 as pb
from maskwire_core.http.problems import Problem
from maskwire_core.models.registry import PUBLISHED

VERSIONS = ("hiera_tiny", "hiera_small", "hiera_b_plus", "hiera_large")
"""Names of the published models in /sam2 requests. The last one answers if none is named."""

SAM3 = "sam3/sam3_interactive"
"""Name of the model that /sam3 requests are for."""


def find(name: str, models: Sequence[pb.ModelInfo]) -> pb.ModelInfo | None:
    """The served model of a name, in any of its spellings; None if it is not served."""
    return next((model for model in models if model.name == canonical(name)), None)


def name_of(model: pb.ModelInfo) -> str:
    """The name that clients of /sam2 know a served model by: sam2/hiera_tiny and so on, else its own."""
    return next((f"sam2/{version}" for version in VERSIONS if canonical(version) == model.name), model.name)


def choose(name: str, models: Sequence[pb.ModelInfo], other_model: str, field: str) -> pb.ModelInfo:
    """Chooses the model that answers for a name.

    Args:
        name: hiera_tiny, sam2/hiera_tiny, sam2.1_hiera_tiny, or any name under which a model is served; one that begins
            with sam3/ is never served.
        models: The models that are served, not empty.
        other_model: What answers for a version of SAM that is not served: "default" (the default model) or "refuse".
        field: Field of the request that has the name, for errors.

    Raises:
        Problem: BAD_VERSION: there is no such version; MODEL_NOT_FOUND: it is not served.
    """
    model = find(name, models)
    if model is not None:
        return model
    served = [model.name for model in models]
    if canonical(name) not in PUBLISHED and not name.startswith("sam3/"):
        raise Problem(400, model_not_served(name, served, VERSIONS), "BAD_VERSION", field)
    if other_model == "refuse":
        raise Problem(404, model_not_served(name, served), "MODEL_NOT_FOUND", field)
    return next((model for model in models if model.is_default), models[0])
