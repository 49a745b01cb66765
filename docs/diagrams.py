"""Draws docs/assets/*.mmd as SVG: python docs/diagrams.py. With --check, only says which drawings are out of date.

Drawing needs npm, whose registry has Mermaid, and Chromium. The drawings are in the repository, so that neither
building nor reading the documentation needs either.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MERMAID = "mermaid@11.17.2"
ASSETS = Path(__file__).parent / "assets"
_DRAW = """async (source) => {
  mermaid.initialize({ startOnLoad: false, theme: "neutral", htmlLabels: false, flowchart: { htmlLabels: false },
    fontFamily: "Helvetica, Arial, sans-serif", themeCSS: ".actor { stroke-width: 1px }" });
  return (await mermaid.render("diagram", source)).svg;
}"""


def _drawn(sources: list[str]) -> list[str]:
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        subprocess.run(["npm", "pack", "--silent", MERMAID], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tgz")
        script = "package/dist/mermaid.min.js"
        subprocess.run(["tar", "-xzf", archive, script], cwd=folder, check=True)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page()
        tab.add_script_tag(path=Path(folder) / script)
        drawings = [tab.evaluate(_DRAW, source) for source in sources]
        browser.close()
    return drawings


def main() -> None:
    paths = sorted(ASSETS.glob("*.mmd"))
    marks = [f"<!-- {MERMAID} of {hashlib.sha256(path.read_bytes()).hexdigest()[:16]} -->" for path in paths]
    drawings = [path.with_suffix(".svg") for path in paths]
    if "--check" in sys.argv:
        stale = [path.name for path, mark in zip(drawings, marks, strict=True) if mark not in path.read_text()]
        if stale:
            raise SystemExit(f"error: {' and '.join(stale)} are not current; run: python docs/diagrams.py")
        return
    for path, mark, svg in zip(drawings, marks, _drawn([path.read_text() for path in paths]), strict=True):
        # A background of its own: the text is dark, and the page may be, too.
        background = svg.replace('style="', 'style="background-color: white; ', 1)
        path.write_text(f"{background}\n{mark}\n")


if __name__ == "__main__":
    main()
