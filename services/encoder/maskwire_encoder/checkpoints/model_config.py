"""Loads SAM 2 model configurations, and builds the models that they describe."""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from maskwire.suggest import no_such
from maskwire_core.models.registry import PUBLISHED, ModelError
from omegaconf import DictConfig, ListConfig, OmegaConf
from sam2 import build_sam  # noqa: F401 - importing it registers the package's configurations with hydra
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

_CLASSES_OF = ("sam2.", "torch.nn.")


class _Undrawn(TorchFunctionMode):
    """Leaves tensors as they are that a constructor would fill with random numbers: most of the time that it takes."""

    _DRAWING = frozenset(
        {init.uniform_, init.normal_, init.trunc_normal_, init.kaiming_uniform_, init.kaiming_normal_}
        | {init.xavier_uniform_, init.xavier_normal_, Tensor.uniform_, Tensor.normal_, Tensor.erfinv_}
    )

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func in self._DRAWING:
            return named["tensor"] if "tensor" in named else args[0]
        return func(*args, **named)


def load(name: str, changes: Mapping[str, Any]) -> DictConfig:
    """Loads the model section of a configuration and resolves it.

    Args:
        name: Path to a YAML file, or the name of a configuration in the sam2 package.
        changes: Values that override the configuration, by dotted path in the model section.

    Raises:
        ModelError: There is no such configuration, or it does not describe a model.
    """
    is_file = Path(name).is_file()
    try:
        loaded = OmegaConf.load(name) if is_file else compose(config_name=name)
    except Exception as error:  # the errors of hydra and YAML share no base class
        if is_file:
            raise ModelError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from error
        known = (published.config for published in PUBLISHED.values())
        raise ModelError(f"{no_such('configuration', name, known)} (a YAML file, or one of sam2's)") from error
    config = loaded.get("model") if isinstance(loaded, DictConfig) else None
    if not isinstance(config, DictConfig):
        trainer = isinstance(loaded, DictConfig) and "trainer" in loaded
        raise ModelError(
            f"{name} has no 'model' section"
            + (": it configures a training; give the configuration of the model that was trained" if trainer else "")
        )
    try:
        for key, value in changes.items():
            OmegaConf.update(config, key, value, force_add=True)
        OmegaConf.resolve(config)
    except Exception as error:  # omegaconf raises exceptions of many types
        raise ModelError(f"{name}: {str(error).splitlines()[0]}") from error
    return config


def build(config: DictConfig, name: str) -> Any:
    """Builds the model that a configuration describes, for weights that are loaded: its own are arbitrary.

    Args:
        config: From `load`.
        name: Name of the configuration, for error messages.

    Returns:
        A `sam2.modeling.sam2_base.SAM2Base`.

    Raises:
        ModelError: A class is not sam2's or torch.nn's, or its arguments are wrong; the message names the key.
    """
    for key, target in _targets(config, "model"):
        if not target.startswith(_CLASSES_OF):
            raise ModelError(f"{name}: {key}._target_ is {target}; only classes of sam2 and torch.nn are built")
    try:
        with _Undrawn():
            model = instantiate(config, _recursive_=True)
    except InstantiationException as error:
        raise ModelError(f"{name}: {_told(error, config)}") from error
    except Exception as error:  # constructors raise exceptions of many types
        raise ModelError(f"{name} does not describe a SAM 2 model: {_line(error)}") from error
    if not all(hasattr(model, part) for part in ("image_encoder", "sam_prompt_encoder", "sam_mask_decoder")):
        raise ModelError(f"{name} does not describe a SAM 2 model: model._target_ is {type(model).__name__}")
    return model


def _targets(config: DictConfig | ListConfig, key: str) -> Iterator[tuple[str, str]]:
    """Yields the key of each section that names a class, and the class's name."""
    items: Iterable[tuple[Any, Any]] = config.items() if isinstance(config, DictConfig) else enumerate(config)
    for name, value in items:
        if name == "_target_":
            yield key, str(value)
        elif isinstance(value, DictConfig | ListConfig):
            yield from _targets(value, f"{key}.{name!s}")


def _told(error: InstantiationException, config: DictConfig) -> str:
    """Describes a constructor's error by the keys of the configuration."""
    found = re.search(r"full_key: (?:model\.)?(\S+)", str(error))
    inside = found[1] if found is not None and found[1] != "model" else ""
    section = OmegaConf.select(config, inside) if inside else config
    key = f"model.{inside}" if inside else "model"
    cause = error.__cause__ or error
    if unknown := re.search(r"unexpected keyword argument '(\w+)'", str(cause)):
        known = inspect.signature(get_class(section["_target_"])).parameters
        return f"{key} has {no_such('key', unknown[1], known)}"
    if missing := re.search(r"missing \d+ required [\w-]+ arguments?: (.*)", str(cause)):
        return f"{key} lacks {missing[1]}"
    if isinstance(cause, ImportError):
        return f"{key}._target_ names {section['_target_']}, which does not exist"
    return f"{key} has values that do not go together: {_line(cause)}"


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
