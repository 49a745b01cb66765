"""Which of the served models answers for the SAM 2 version that a caller names."""

from collections.abc import Sequence

from maskwire.v1 import encoder_pb2 as pb
from maskwire_core.models import PUBLISHED, canonical

from maskwire_gateway.problems import Problem


def served(name: str, models: Sequence[pb.ModelInfo]) -> pb.ModelInfo | None:
    """The model of a name, if it is served."""
    return next((model for model in models if model.name == canonical(name)), None)


def choose(name: str, models: Sequence[pb.ModelInfo], other_model: str) -> pb.ModelInfo:
    """The model that answers.

    Args:
        name: hiera_tiny, sam2/hiera_tiny, sam2.1_hiera_tiny, or any name under which a model is served.
        models: Those that are served.
        other_model: "default" or "refuse": what becomes of a SAM 2 version that is not.

    Raises:
        Problem: No such model is served, or there is no such version.
    """
    model = served(name, models)
    if model is not None:
        return model
    names = ", ".join(model.name for model in models)
    if canonical(name) not in PUBLISHED:
        raise Problem(
            400,
            f"{name!r} is no version of SAM 2; there are hiera_tiny, hiera_small, hiera_b_plus and hiera_large, and "
            f"served here: {names}",
            "BAD_VERSION",
            "sam2_version_id",
        )
    if other_model == "refuse":
        raise Problem(404, f"served here: {names}; not {name!r}", "MODEL_NOT_FOUND", "sam2_version_id")
    return next((model for model in models if model.is_default), models[0])
