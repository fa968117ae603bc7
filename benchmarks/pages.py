"""Results on paper: JSON files, and the sections of README.md that the commands write.

A section stands between `<!-- NAME begin -->` and `<!-- NAME end -->`; the rest of the page is
written by people. matplotlib draws the plots; neocog depends on it anyway.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

__all__ = ["HOME", "plot", "save", "section", "table"]

HOME = Path(__file__).resolve().parent
"""Where the page and its `results/` lie."""
OURS, THEIRS, CEILING = "#c2410c", "#94a3b8", "#475569"


def save(home: Path, name: str, value: dict[str, Any]) -> Path:
    """Write `results/NAME.json`."""
    path = home / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def section(home: Path, name: str, lines: list[str], *, under: str = "") -> None:
    """Replace one section of the page; a new one comes directly after the section `under`.

    Raises:
        SystemExit: the page has no such section.
    """
    page = home / "README.md"
    if not page.exists():
        shutil.copy(HOME / "README.md", page)
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} begin -->", f"<!-- {name} end -->"
    if begin not in text and under:
        last = f"<!-- {under} end -->"
        text = text.replace(last, f"{last}\n\n### {name}\n\n{begin}{end}")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{page} has no section {begin} … {end}")
    body = "\n".join(["", *lines, ""])
    page.write_text(before + begin + body + end + after, encoding="utf-8")


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown; columns after the first two are to the right where they are numbers."""
    rule = ["---" if index == 0 else "---:" for index in range(len(head) - 1)] + ["---"]
    return ["| " + " | ".join(row) + " |" for row in (head, rule, *rows)]


def plot(
    home: Path, name: str, title: str, unit: str, bars: dict[str, tuple[float, float, float]]
) -> str:
    """Draw `results/NAME.svg`: a bar a side with its spread; the line that shows it in the page.

    Args:
        home: folder of the page.
        name: of the figure.
        title: above the bars.
        unit: below the axis.
        bars: side → median, lowest, highest.
    """
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = name  # the same numbers give the same file
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.42 * len(bars)), layout="constrained")
    names = list(bars)
    for place, side in enumerate(names):
        median, low, high = bars[side]
        colour = OURS if side.startswith(("ours", "neocog")) else THEIRS
        axes.barh(
            place,
            median,
            xerr=[[median - low], [high - median]],
            color=CEILING if side.startswith("bare") else colour,
            error_kw={"elinewidth": 1, "capsize": 3},
        )
        axes.annotate(
            f"{median:,.0f}" if median >= 10 else f"{median:.3g}",
            (high, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(unit)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    path = home / "results" / f"{name}.svg"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return f"![{title}](results/{name}.svg)"
