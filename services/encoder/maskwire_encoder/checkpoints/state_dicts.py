"""Reads the tensors of a SAM 2 model from a checkpoint file, however a trainer has wrapped them."""

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
"""Parts of tensor names that DDP, torch.compile, Lightning Fabric, FSDP and activation checkpointing add."""
_AVERAGED = ("ema", "averag", "swa", "shadow", "teacher")
_MAX_DEPTH = 12
_OTHER_FORMATS = {
    "vision_encoder.": "Hugging Face transformers' names; take the .pt file of the same model instead",
    "image_encoder.patch_embed.": "the names of SAM 1 (segment-anything), which is not served; take a SAM 2 checkpoint",
    "image_encoder.blocks.": "the names of SAM 1 (segment-anything), which is not served; take a SAM 2 checkpoint",
}


@dataclass
class _Group:
    """Tensors whose names share a prefix."""

    tensors: dict[str, Tensor] = field(default_factory=dict)  # by their names without prefix and wrappers
    homes: list[tuple[str, ...]] = field(default_factory=list)  # keys of the mapping that holds each wanted tensor
    inner: list[str] = field(default_factory=list)  # wrappers that were removed from within names


def read(path: Path, wanted: Collection[str]) -> tuple[Mapping[str, Tensor], str]:
    """Reads a .pt or .safetensors file, whose format is recognised by content. Pickled code is not run.

    Args:
        path: Path to the file.
        wanted: Names of the model's tensors.

    Returns:
        Tensors by the model's own names, including any beside them that no SAM 2 model has; and how they were found,
        such as "unwrapped state_dict, removed prefix module.", empty if as in a bare or a published checkpoint.

    Raises:
        ModelError: The file cannot be read, or holds no tensor of a SAM 2 model.
    """
    check_file(path)
    loaded = _load(path)
    found = _unwrap(loaded, wanted)
    if found is None:
        names = [".".join(keys) for keys, _ in _tensors(loaded)]
        for start, told in _OTHER_FORMATS.items():
            if any(start in name for name in names):
                raise ModelError(f"{path} has {told}")
        held = f"{len(names)} tensors, such as {names[0]}" if names else "no tensors"
        raise ModelError(f"{path} holds no weights of a SAM 2 model, but {held}")
    return found


def _unwrap(loaded: object, wanted: Collection[str]) -> tuple[Mapping[str, Tensor], str] | None:
    """Finds a model's tensors in nested mappings and lists, also under names with prefixes; None if none is there.

    If there are several sets of weights, the most complete one is taken; of equals, plain before averaged ones.
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
            tensors[".".join(words[len(prefix) :])] = tensor  # belongs to a model of another kind
        else:
            left_out.append(words)
    keys = min(homes, key=len)
    outer = ".".join(keys).split(".")[: len(prefix)] if keys else []
    told = [f"unwrapped {'.'.join(outer)}"] if outer else []
    if inner := prefix[len(outer) :]:
        told.append(f"removed prefix {'.'.join(inner)}.")
    told += [f"removed {wrapper}. inside names" for wrapper in dict.fromkeys(group.inner)]
    entries = dict.fromkeys(words[0] for words in left_out if words[:1] != prefix[:1])
    if entries:
        told.append(f"left out {', '.join(entries)}")
    elif told == ["unwrapped model"]:  # as the published ones are
        told = []
    if averaged := next((each for each in complete if each != prefix and _is_averaged(each)), None):
        told.append(f"took the plain weights and not the averaged ones in {'.'.join(averaged)}")
    return tensors, ", ".join(told)


def _is_averaged(prefix: tuple[str, ...]) -> bool:
    return any(mark in word.lower() for word in prefix for mark in _AVERAGED)


def _tensors(loaded: object, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Yields all tensors in nested mappings and lists, with the keys that lead to them."""
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
        except Exception as error:  # SafetensorError, which is not public
            raise ModelError(f"{path} is a truncated or damaged safetensors file ({error}); get it again") from error
    archive = zipfile.is_zipfile(path)
    if not archive and head[:1] != b"\x80":
        raise ModelError(f"{path} is not a checkpoint (.pt or .safetensors): it begins with {head[:8]!r}")
    try:
        if path.suffix == ".safetensors":  # torch.load would go by the suffix
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
        # With mmap, unused entries, such as the state of an optimizer, are not read.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except Exception as error:  # torch raises exceptions of many types
        raise ModelError(f"{path} {_unreadable(str(error))}") from error


def _unreadable(error: str) -> str:
    """Explains why torch cannot read a file, with the remedy."""
    resave = "save its weights alone, where it was trained: torch.save(model.state_dict(), 'weights.pt')"
    if "TorchScript" in error:
        return f"is a TorchScript archive, not a checkpoint; {resave}"
    if code := re.search(r"GLOBAL ([\w.]+)", error):
        return f"is a pickle that runs code when it is read ({code[1]}), which is refused; {resave}"
    if "Unsupported operand" in error:
        return f"is a pickle that torch.save did not write; {resave}"
    return f"is truncated or damaged ({error.splitlines()[0] if error else 'unreadable'}); get or save it again"
