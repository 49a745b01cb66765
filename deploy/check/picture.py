"""Draws the dashboard's panels: python -m deploy.check.picture http://PROMETHEUS:9090 OUT.png MINUTES"""

import json
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

DASHBOARD = Path(__file__).parents[1] / "observe/dashboard.json"
_COLUMNS = 4
_STEP_S = 5


def draw(prometheus: str, out: Path, minutes: float) -> None:
    """The dashboard's queries, as Grafana would ask them. Panels without data are drawn empty."""
    panels = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]
    rows = -(-len(panels) // _COLUMNS)
    figure, axes = pyplot.subplots(rows, _COLUMNS, figsize=(5 * _COLUMNS, 2.6 * rows), squeeze=False)
    now = time.time()
    for axis, panel in zip(axes.flat, panels, strict=False):
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "30s")
            for series in ask(prometheus, expression, now - 60 * minutes, now):
                label = target["legendFormat"]
                for name, value in series["metric"].items():
                    label = label.replace(f"{{{{{name}}}}}", value)
                times = [float(moment) - now for moment, _ in series["values"]]
                axis.plot(times, [float(value) for _, value in series["values"]], linewidth=1, label=label)
        axis.set_title(f"{panel['title']} [{panel['fieldConfig']['defaults'].get('unit', '')}]", fontsize=9)
        axis.tick_params(labelsize=7)
        axis.set_ylim(bottom=0)
        if axis.lines:
            axis.legend(fontsize=5, loc="upper left")
    for axis in list(axes.flat)[len(panels) :]:
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(out, dpi=80)


def ask(prometheus: str, expression: str, start: float, end: float) -> list[dict[str, dict[str, str]]]:
    """A range query's series."""
    query = urllib.parse.urlencode({"query": expression, "start": start, "end": end, "step": _STEP_S})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{query}", timeout=30) as response:
        found: list[dict[str, dict[str, str]]] = json.loads(response.read())["data"]["result"]
    return found


if __name__ == "__main__":
    draw(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
