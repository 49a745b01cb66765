"""Which of the served models answers for the SAM 2 version that a caller names."""

from collections.abc import Sequence

from maskwire.suggest import no_such
from maskwire.v1 import encoder_pb2 as pb
from maskwire_core.http.problems import Problem
from maskwire_core.models.registry import PUBLISHED, canonical

VERSIONS = ("hiera_tiny", "hiera_small", "hiera_b_plus", "hiera_large")
"""What clients of /sam2 call the published models."""


def served(name: str, models: Sequence[pb.ModelInfo]) -> pb.ModelInfo | None:
    """The model of a name, if it is served."""
    return next((model for model in models if model.name == canonical(name)), None)


def no_model(name: str, models: Sequence[pb.ModelInfo], others: Sequence[str] = ()) -> str:
    """Says that a model is not served, which one may be meant, and which are.

    Args:
        name: What was asked for.
        models: Those that are served.
        others: Further names that are understood.
    """
    served = [model.name for model in models]
    said = no_such("model", name, [*served, *others])
    if "choose from" in said and not others:
        return said
    return f"{said}{'' if said.endswith('?') else ';'} served here: {', '.join(served)}"


def choose(name: str, models: Sequence[pb.ModelInfo], other_model: str, field: str) -> pb.ModelInfo:
    """The model that answers.

    Args:
        name: hiera_tiny, sam2/hiera_tiny, sam2.1_hiera_tiny, or any name under which a model is served.
        models: Those that are served.
        other_model: "default" or "refuse": what becomes of a SAM 2 version that is not.
        field: Where the name stands, for errors.

    Raises:
        Problem: No such model is served, or there is no such version.
    """
    model = served(name, models)
    if model is not None:
        return model
    if canonical(name) not in PUBLISHED:
        raise Problem(400, no_model(name, models, VERSIONS), "BAD_VERSION", field)
    if other_model == "refuse":
        raise Problem(404, no_model(name, models), "MODEL_NOT_FOUND", field)
    return next((model for model in models if model.is_default), models[0])
