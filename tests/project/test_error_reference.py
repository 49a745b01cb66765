"""docs/reference/errors.md has every reason that the code gives, once, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from testing.paths import ROOT

PAGE = ROOT / "docs/reference/errors.md"
CODE = ("services", "clients/python/maskwire", "clients/adapters")
ERRORS = {
    "ChildFailed", "DeadlineExceeded", "FailedPrecondition", "Internal", "InvalidArgument", "InvalidRequest",
    "MaskwireError", "NotFound", "OutputMissing", "PermissionDenied", "PictureError", "Problem", "ResourceExhausted",
    "ServiceError", "Unauthenticated", "Unavailable", "UnknownArgument",
}  # fmt: skip
"""Calls whose texts in capitals are reasons, with or without an underscore."""
NO_REASONS = {
    "AUTOLABEL_OBJECT",  # a kind of mark of X-AnyLabeling
    "FULL_DEVICE_NAME", "INFERENCE_NUM_THREADS", "INFERENCE_PRECISION_HINT", "OPTIMIZATION_CAPABILITIES",
    "PERFORMANCE_HINT",  # OpenVINO's
    "GRPC_ENABLE_FORK_SUPPORT", "JOB_COMPLETION_INDEX", "LABEL_STUDIO_API_KEY", "LABEL_STUDIO_URL",
    "XDG_CACHE_HOME",  # of the environment
    "NOT_SERVING", "NO_SUCH_SERVICE", "WRONG_KIND",  # healths
    "MADV_REMOVE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "SC_PAGE_SIZE",
}  # fmt: skip
"""Texts in capitals with underscores that are no reasons."""


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for folder in CODE:
        for path in (ROOT / folder).rglob("*.py"):
            if "v1" not in path.parts:
                yield path, ast.parse(path.read_text())


def reasons() -> set[str]:
    found = set()
    for _, tree in sources():
        for node in ast.walk(tree):
            texts: list[ast.AST] = []
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ERRORS:
                texts = [*node.args, *(keyword.value for keyword in node.keywords)]
            for text in [node, *texts]:
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    pattern = r"[A-Z]+(_[A-Z]+)+" if text is node else r"[A-Z]{2,}(_[A-Z]+)*"
                    if re.fullmatch(pattern, text.value):
                        found.add(text.value)
    return {name for name in found if not name.startswith("MASKWIRE_")}


def rows() -> list[tuple[str, str, str]]:
    return re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*?) ?\|$", PAGE.read_text(), re.M)


def test_the_page_has_every_reason_once() -> None:
    listed = [name for name, _, _ in rows()]
    found = reasons()
    assert found >= NO_REASONS  # or it is not needed here any more
    assert sorted(listed) == sorted(found - NO_REASONS)


def test_every_reason_has_a_meaning_and_nearly_all_a_remedy() -> None:
    without = {name for name, meaning, remedy in rows() if not meaning or not remedy}
    assert without == {"NOTHING_TO_UNDO", "NOTHING_TO_REDO", "CLIENT_LEFT"}
