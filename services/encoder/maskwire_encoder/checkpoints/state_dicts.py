"""Reading checkpoint files: a SAM 2 model's tensors, whatever a trainer has wrapped around them."""

import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from maskwire_core.models.registry import ModelError, check_file
from safetensors.torch import load_file
from torch import Tensor

_WRAPPERS = {"module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""What DDP, torch.compile, Lightning Fabric, FSDP and activation checkpointing put into the names of tensors."""
_AVERAGED = ("ema", "averag", "swa", "shadow", "teacher")
_MAX_DEPTH = 12
_OTHER_FORMATS = {
    "vision_encoder.": "Hugging Face transformers' names; take the .pt file of the same model instead",
    "image_encoder.patch_embed.": "the names of SAM 1 (segment-anything), which is not served; take a SAM 2 checkpoint",
    "image_encoder.blocks.": "the names of SAM 1 (segment-anything), which is not served; take a SAM 2 checkpoint",
}


@dataclass(frozen=True)
class StateDict:
    """The tensors of a checkpoint.

    Attributes:
        tensors: By the model's own names; also those beside them that no SAM 2 model has.
        unwrapped: What was taken off, such as "unwrapped state_dict" and "removed prefix module."; empty if nothing.
        left_out: What else the file holds and is not used, such as "optimizer".
        averaged: Where it holds averaged (EMA) weights that were not taken, such as "model_ema"; empty if nowhere.
    """

    tensors: Mapping[str, Tensor]
    unwrapped: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    averaged: str = ""

    @property
    def told(self) -> str:
        """What was done to the checkpoint; empty where it was bare or wrapped as the published ones are."""
        told = [] if self.unwrapped == ("unwrapped model",) and not self.left_out else list(self.unwrapped)
        if self.left_out:
            told.append(f"left out {', '.join(self.left_out)}")
        if self.averaged:
            told.append(f"took the plain weights and not the averaged ones in {self.averaged}")
        return ", ".join(told)


@dataclass
class _Group:
    """Tensors whose names begin alike.

    Attributes:
        tensors: By their names from the model's part on, without wrappers.
        homes: The mappings in which those lie that the model has, each as the keys that lead there.
        inner: Wrappers that were removed inside names.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    homes: list[tuple[str, ...]] = field(default_factory=list)
    inner: list[str] = field(default_factory=list)


def read(path: Path, wanted: Collection[str]) -> StateDict:
    """Reads a .pt or .safetensors file, told apart by content. No code of a pickle is run.

    Args:
        path: The file.
        wanted: Names of the model's tensors.

    Raises:
        ModelError: It cannot be read, or holds no tensor of a SAM 2 model.
    """
    check_file(path)
    loaded = _load(path)
    found = unwrap(loaded, wanted)
    if found is None:
        names = [".".join(keys) for keys, _ in _tensors(loaded)]
        for start, told in _OTHER_FORMATS.items():
            if any(start in name for name in names):
                raise ModelError(f"{path} has {told}")
        held = f"{len(names)} tensors, such as {names[0]}" if names else "no tensors"
        raise ModelError(f"{path} holds no weights of a SAM 2 model, but {held}")
    return found


def unwrap(loaded: object, wanted: Collection[str]) -> StateDict | None:
    """Finds a model's tensors in what a file holds: nested mappings of any depth, and names with prefixes.

    Where several sets of weights are there, the most complete is taken; among equals, plain before averaged ones.

    Args:
        loaded: What was read.
        wanted: Names of the model's tensors.

    Returns:
        None if there is no tensor of such a name.
    """
    parts = {name.split(".")[0] for name in wanted}
    groups: dict[tuple[str, ...], _Group] = {}
    others: list[tuple[tuple[str, ...], tuple[str, ...], Tensor]] = []
    for keys, tensor in _tensors(loaded):
        words = tuple(".".join(keys).split("."))
        start = next((index for index, word in enumerate(words) if word in parts), None)
        if start is None:
            others.append((keys, words, tensor))
            continue
        group = groups.setdefault(words[:start], _Group())
        name = ".".join(word for word in words[start:] if word not in _WRAPPERS)
        group.tensors.setdefault(name, tensor)
        if name in wanted:
            group.homes.append(keys[:-1])
            group.inner += [word for word in words[start:] if word in _WRAPPERS]
    complete = {prefix: len(group.homes) for prefix, group in groups.items() if group.homes}
    if not complete:
        return None
    prefix = max(complete, key=lambda each: (complete[each], not _is_averaged(each)))  # the first of equals
    group = groups[prefix]
    homes = set(group.homes)
    tensors = dict(group.tensors)
    left_out = [words for each, other in groups.items() if each != prefix for words in [(*each, *other.tensors)]]
    for keys, words, tensor in others:
        if keys[:-1] in homes and words[: len(prefix)] == prefix and tensor.numel() > 1:
            tensors[".".join(words[len(prefix) :])] = tensor  # beside the model's own: the model is another one
        else:
            left_out.append(words)
    averaged = next((each for each in complete if each != prefix and _is_averaged(each)), ())
    keys = min(homes, key=len)
    outer = ".".join(keys).split(".")[: len(prefix)] if keys else []
    unwrapped = [f"unwrapped {'.'.join(outer)}"] if outer else []
    if inner := prefix[len(outer) :]:
        unwrapped.append(f"removed prefix {'.'.join(inner)}.")
    unwrapped += [f"removed {wrapper}. inside names" for wrapper in dict.fromkeys(group.inner)]
    kept_out = dict.fromkeys(words[0] for words in left_out if words[:1] != prefix[:1])
    return StateDict(tensors, tuple(unwrapped), tuple(kept_out), ".".join(averaged))


def _is_averaged(prefix: tuple[str, ...]) -> bool:
    return any(mark in word.lower() for word in prefix for mark in _AVERAGED)


def _tensors(loaded: object, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """All tensors in nested mappings and lists, with the keys that lead to them."""
    if isinstance(loaded, Tensor):
        yield keys, loaded
    elif len(keys) < _MAX_DEPTH and isinstance(loaded, Mapping):
        for key, value in loaded.items():
            yield from _tensors(value, (*keys, str(key)))
    elif len(keys) < _MAX_DEPTH and isinstance(loaded, list | tuple):
        for index, value in enumerate(loaded):
            yield from _tensors(value, (*keys, str(index)))


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{":
        try:
            return load_file(path)
        except Exception as error:  # safetensors' own kind, whose name is not public
            raise ModelError(f"{path} is a truncated or damaged safetensors file ({error}); get it again") from error
    archive = zipfile.is_zipfile(path)
    if not archive and head[:1] != b"\x80":
        raise ModelError(f"{path} is not a checkpoint (.pt or .safetensors): it begins with {head[:8]!r}")
    try:
        if path.suffix == ".safetensors":  # torch would go by the ending
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
        # With mmap, what is not used, such as an optimizer's state, is not even read.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except Exception as error:  # torch raises many kinds for damaged files
        raise ModelError(f"{path} {_unreadable(str(error))}") from error


def _unreadable(error: str) -> str:
    """Why torch cannot read a file, and the remedy."""
    resave = "save its weights alone, where it was trained: torch.save(model.state_dict(), 'weights.pt')"
    if "TorchScript" in error:
        return f"is a TorchScript archive, not a checkpoint; {resave}"
    if code := re.search(r"GLOBAL ([\w.]+)", error):
        return f"is a pickle that runs code when it is read ({code[1]}), which is refused; {resave}"
    if "Unsupported operand" in error:
        return f"is a pickle that torch.save did not write; {resave}"
    return f"is truncated or damaged ({error.splitlines()[0] if error else 'unreadable'}); get or save it again"
