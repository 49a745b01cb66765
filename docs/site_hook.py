"""Brings the repository files that pages link to into the site, so that it is whole without the repository.

Pages are written for readers of the repository, too: their links to files outside docs/ are relative paths. A Markdown
file becomes a page under repository/, any other file a copy.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "repository"
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
"""Files of the repository that are pages even where nothing links to them."""

_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=(#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files outside docs/ that pages link to, and those to which these link."""
    found = set(PAGES)
    open_pages = [f"docs/{file.src_uri}" for file in files.documentation_pages()] + list(PAGES)
    while open_pages:
        page = open_pages.pop()
        for target in _targets(page):
            if not target.startswith("docs/") and target not in found and (ROOT / target).is_file():
                found.add(target)
                if target.endswith(".md"):
                    open_pages.append(target)
    for path in sorted(found):
        file = File.generated(config, f"{FOLDER}/{path}", abs_src_path=str(ROOT / path))
        # Only the pages named above are in the navigation.
        file.inclusion = InclusionLevel.INCLUDED if path in PAGES else InclusionLevel.NOT_IN_NAV
        files.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points links to files of the repository at their copies in the site."""
    here = page.file.src_uri
    source = here.removeprefix(f"{FOLDER}/") if here.startswith(f"{FOLDER}/") else f"docs/{here}"

    def mended(link: re.Match[str]) -> str:
        target = _resolved(source, link[0])
        if target is None:
            return link[0]
        inside = target.removeprefix("docs/") if target.startswith("docs/") else f"{FOLDER}/{target}"
        return os.path.relpath(inside, PurePosixPath(here).parent) if files.get_file_from_path(inside) else link[0]

    return _LINK.sub(mended, markdown)


def _targets(page: str) -> Iterator[str]:
    """The files of the repository to which a page links, as paths from its root."""
    for link in _LINK.finditer((ROOT / page).read_text()):
        target = _resolved(page, link[0])
        if target is not None:
            yield target


def _resolved(page: str, link: str) -> str | None:
    """The path from the repository's root that a link of a page means; None for addresses."""
    if ":" in link or link.startswith("/"):
        return None
    return os.path.normpath(PurePosixPath(page).parent / link)
