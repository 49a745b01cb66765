"""The snippets of README.md and the tutorials, and running them as a reader would: in order, in one folder."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Snippet:
    """A fenced block of a page.

    Attributes:
        place: Page and line, for messages.
        language: The word after the fence.
        title: Name of the file that the block is; empty if it is none.
        text: The block.
    """

    place: str
    language: str
    title: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The lines of a bash block, with continued ones joined; comments at their ends are removed."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [re.sub(r"\s+# .*$", "", line).rstrip() for line in lines]


def snippets(page: Path) -> list[Snippet]:
    """The fenced blocks of a Markdown page, in order."""
    text = page.read_text()
    return [
        Snippet(f"{page.name}:{text.count(chr(10), 0, found.start()) + 1}", found[1], found[2] or "", found[3])
        for found in _FENCE.finditer(text)
    ]


@dataclass
class Reader:
    """A shell in a folder, whose exported variables last from one snippet to the next.

    Attributes:
        folder: Where commands run.
        environment: Variables of its first command.
        replacements: Texts that are replaced in every snippet, such as the ports that pages name by those of the tests.
    """

    folder: Path
    environment: Mapping[str, str]
    replacements: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")

    def replaced(self, text: str) -> str:
        """A snippet's text as it is run."""
        for old, new in self.replacements.items():
            text = text.replace(old, new)
        return text

    def write(self, name: str, text: str) -> None:
        """Writes a snippet that is a file."""
        (self.folder / name).write_text(self.replaced(text))

    def shell(self, script: str) -> str:
        """Runs bash commands, the first of which to fail ends them. Returns what they print."""
        state = self.folder / ".exports"
        known = f"source {state}\n" if state.exists() else ""
        ran = subprocess.run(
            ["bash", "-c", f"set -euo pipefail\n{known}{self.replaced(script)}\nexport -p >{state}"],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "CURL_HOME": str(self.folder),
                "XDG_CACHE_HOME": str(self.folder / ".cache"),
                **self.environment,
            },
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert ran.returncode == 0, f"{script}\n{ran.stdout}{ran.stderr}"
        return ran.stdout + ran.stderr

    def exported(self) -> dict[str, str]:
        """The variables of Maskwire that snippets have exported so far."""
        listed = self.shell("env -0 | grep -z ^MASKWIRE_ || true").split("\0")
        return dict(entry.split("=", 1) for entry in listed if "=" in entry)
