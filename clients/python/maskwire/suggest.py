"""Error messages for unknown names: "no argument 'pionts'; did you mean 'points'?"."""

import difflib
from collections.abc import Iterable, Sequence

_MAX_LISTED = 12  # if no name is similar, up to this many known names are listed
_MAX_SHOWN = 100  # characters of a name


def shortened(name: str) -> str:
    """Returns a name that somebody sent as errors show it: the beginning of one that is no name at all."""
    return name if len(name) <= _MAX_SHOWN else f"{name[: _MAX_SHOWN - 3]}..."


def no_such(kind: str, name: str, known: Iterable[str]) -> str:
    """Says that a name does not exist, and suggests the most similar existing one, or all if they are few.

    Args:
        kind: What the name stands for, such as "argument", "field" or "model".
        name: The unknown name.
        known: The names that exist.

    Returns:
        A clause without a capital letter and without a full stop.
    """
    name, names = shortened(name), sorted(set(known))
    folded = {candidate.casefold(): candidate for candidate in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    longer = [candidate for key, candidate in folded.items() if key.startswith(f"{name.casefold()}_")]
    if close or len(longer) == 1:
        return f"no {kind} {name!r}; did you mean {(folded[close[0]] if close else longer[0])!r}?"
    if names and len(names) <= _MAX_LISTED:
        return f"no {kind} {name!r}; choose from {', '.join(names)}"
    return f"no {kind} {name!r}"


def model_not_served(name: str, served: Iterable[str], others: Sequence[str] = ()) -> str:
    """Says that a model is not served, suggests the most similar name, and lists the served models.

    Args:
        name: Name of the requested model.
        served: Names of the models that are served.
        others: Further names that are accepted.
    """
    served = list(served)
    message = no_such("model", name, [*served, *others])
    if "choose from" in message and not others:
        return message
    return f"{message}{'' if message.endswith('?') else ';'} served here: {', '.join(served)}"
