"""Score a run again, on its own data or on other data. Floor 5, room verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neocog.errors import RunError
from neocog.records import scores_to_dict
from neocog.run import headline, open_run
from neocog.verbs.result import Result

if TYPE_CHECKING:
    from pathlib import Path

    from neocog.records import Scores
    from neocog.verbs.console import Console

__all__ = ["evaluate"]


def evaluate(path: Path, source: str, *, device: str, model: str, console: Console) -> Result:
    """Scores of the test part (or val, or all) at the top level, and every part under its name.

    Raises:
        RunError: no finished run, its data has changed, or nothing was held back.
        DataError: the source is broken, or holds classes that the run does not know.
    """
    run = open_run(path, model=model)
    found = run.evaluate(source, device=device, progress=console.progress)
    console.done()
    if not found:
        raise RunError(
            f"the run {path} held nothing back, so there is nothing to score",
            f"give it data: neocog eval {path} SOURCE",
        )
    lines: list[str] = []
    for part, scores in found.items():
        lines += [f"{part}: {headline(scores)}", *_classes(scores)]
    part = next(name for name in ("test", "val", "all") if name in found)
    json: dict[str, Any] = {"run": str(path), "part": part, **scores_to_dict(found[part])}
    json.update({name: scores_to_dict(scores) for name, scores in found.items()})
    return Result(json=json, lines=lines)


def _classes(scores: Scores) -> list[str]:
    """The table of classes."""
    if not scores.classes:
        return []
    width = max(5, *(len(row.name) for row in scores.classes))
    # What overlaps is told of masks alone; a class that does not occur has none.
    masks = any(row.jaccard is not None for row in scores.classes)
    titles = [*(["  Jaccard  "] if masks else []), "precision", "   recall", "       f1"]
    most = max(len(f"{row.n:,}") for row in scores.classes)
    lines = [f"  {'class':{width}}  {''.join(titles)} {'n':>{max(8, most)}}"]
    for row in scores.classes:
        values = (*([row.jaccard] if masks else []), row.precision, row.recall, row.f1)
        cells = ["        –" if one is None else f"{100 * one.value:7.1f} %" for one in values]
        lines.append(f"  {row.name:{width}}  {''.join(cells)} {row.n:{max(8, most)},}")
    return lines
