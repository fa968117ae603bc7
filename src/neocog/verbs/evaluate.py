"""Score a run again, on its own data or on other data. Floor 5, room verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neocog.records import scores_to_dict
from neocog.run import headline, open_run

if TYPE_CHECKING:
    from pathlib import Path

    from neocog.records import Scores
    from neocog.verbs.console import Console

__all__ = ["evaluate"]


def evaluate(
    path: Path, source: str, *, device: str, model: str, console: Console
) -> dict[str, Any]:
    """The scores as JSON values: those of the test part (or val, or all) at the top level, and
    every part under its name.

    Raises:
        RunError: no finished run, or its data has changed.
        DataError: the source is broken, or holds classes that the run does not know.
    """
    run = open_run(path, model=model)
    found = run.evaluate(source, device=device)
    for part, scores in found.items():
        console.say(f"{part}: {headline(scores)}")
        _classes(scores, console)
    part = next((name for name in ("test", "val", "all") if name in found), "")
    result: dict[str, Any] = {"run": str(path), "part": part}
    if part:
        result.update(scores_to_dict(found[part]))
    else:
        console.say("this run held nothing back: give a source to evaluate on")
    result.update({name: scores_to_dict(scores) for name, scores in found.items()})
    return result


def _classes(scores: Scores, console: Console) -> None:
    """The table of classes, for people."""
    if not scores.classes:
        return
    width = max(len(row.name) for row in scores.classes)
    console.say(f"  {'class':{width}}  precision  recall      f1       n")
    for row in scores.classes:
        cells = [
            "       –" if value is None else f"{100 * value.value:6.1f} %"
            for value in (row.precision, row.recall, row.f1)
        ]
        console.say(f"  {row.name:{width}}   {cells[0]} {cells[1]} {cells[2]} {row.n:7,}")
