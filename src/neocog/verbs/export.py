"""Write a run's network as a file for other programs, checked. Floor 5, room verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neocog.errors import ConfigError
from neocog.export.exporting import export as write
from neocog.export.onnx import ports
from neocog.export.samples import LARGE, WHOLE_SIDES
from neocog.geometry import size_text
from neocog.measures import called, is_share
from neocog.run import open_run
from neocog.verbs.result import Result

if TYPE_CHECKING:
    from pathlib import Path

    from neocog.export.exporting import Exported
    from neocog.export.parity import Parity
    from neocog.records import InputSpec, Interval
    from neocog.verbs.console import Console

__all__ = ["export", "told"]

_NAMED = 6
"""Classes that a line has room for."""


def export(path: Path, *, model: str, console: Console, **options: Any) -> Result:
    """The file, how it is used and what the check found.

    Args:
        path: the run's folder.
        model: names a foreign factory again.
        console: told how far it is.
        options: of `export.exporting.export`.

    Raises:
        ConfigError, RunError, DataError: see there.
    """
    _refuse_no_run(path)
    found = write(open_run(path, model=model), progress=console.progress, **options)
    console.done()
    return Result(json=_json(found), lines=told(found))


def _refuse_no_run(path: Path) -> None:
    """Stop at what has a network but no data to check it on.

    Raises:
        ConfigError: a bundle, or a file.
    """
    bundle = (path / "bundle.json").is_file() and not (path / "manifest.json").is_file()
    if bundle or path.is_file():
        raise ConfigError(
            f"{path} is {'a bundle' if bundle else 'a file'}, expected a run: an exported network "
            "is compared with the run on its data",
            "neocog export RUN, the folder that neocog train printed"
            + (f": {path.resolve().parent}" if path.name == "bundle" else ""),
        )


def _shapes(found: Exported) -> tuple[str, dict[str, str]]:
    """Of the input, and of the outputs by name, as the file calls its axes."""
    spec = found.described.input
    sides = ["height", "width"] if len(spec.size) == 2 else [str(side) for side in spec.size]
    _, outputs = ports(found.described)
    answers = ["batch", str(len(found.described.classes)), *(sides if spec.whole else [])]
    shapes = {name: "×".join(answers) for name in outputs}
    if "mask" in shapes:
        shapes["mask"] = "×".join(["batch", *sides])
    return "×".join(["batch", str(spec.channels), *sides]), shapes


def _json(found: Exported) -> dict[str, Any]:
    name, _ = ports(found.described)
    given, answers = _shapes(found)
    return {
        "file": str(found.path),
        "to": found.form,
        "precision": found.precision,
        "bytes": found.bytes,
        "sha256": found.sha256,
        "report": str(found.report),
        "input": {"name": name, "shape": given},
        "outputs": [{"name": one, "shape": shape} for one, shape in answers.items()],
        "classes": list(found.described.classes),
        "parity": found.parity.plain(),
        "seconds": round(found.seconds, 3),
    }


def told(found: Exported) -> list[str]:
    """The same for people."""
    name, _ = ports(found.described)
    given, answers = _shapes(found)
    spec, classes = found.described.input, found.described.classes
    names = ", ".join(classes[:_NAMED]) + (", …" if len(classes) > _NAMED else "")
    return [
        f"{found.path}  ({found.bytes / 1e6:,.1f} MB, {found.precision})",
        f"  takes    {name}  {given}: raw, {_fits(spec)}",
        *(f"  gives    {one}  {shape}" for one, shape in answers.items()),
        f"  means    {len(classes):,}: {names}",
        *(f"  {word:7}  {text}" for word, text in _checked(found.parity, found.precision)),
        f"  report   {found.report}",
        f"  use      {_use(found)}",
    ]


def _fits(spec: InputSpec) -> str:
    """How many, of what size."""
    if len(spec.size) != 2:
        return f"any number, each {size_text(spec.size)}"
    if not spec.whole:
        return "any number, any size"
    return f"any number, any size, in one piece (the run: above {WHOLE_SIDES[1]:,} in several)"


def _checked(parity: Parity, precision: str) -> list[tuple[str, str]]:
    """What was compared, in words."""
    allowed = "" if precision == "int8" else f" ({parity.tolerance.numbers:g} is allowed)"
    more = parity.asked - parity.n
    more_text = f" and {more:,} in other sizes or batches" if more else ""
    lines = [
        (
            "checked",
            f"{parity.n:,} samples of {parity.part}{more_text} against the run: answers at most "
            f"{parity.apart:.1e} apart{allowed}",
        )
    ]
    if parity.exception:
        lines.append(("except", parity.exception))
    if parity.pieces is not None:
        lines.append(
            ("pieces", f"at {LARGE:,} pixels, which the run takes in pieces: {parity.pieces:.1e}")
        )
    if parity.labels:
        same = parity.labels - parity.other
        text = f"{same:,} of {parity.labels:,} are the run's"
        if parity.ties and precision != "int8":
            text += "; in the others the run has both as good as equal"
        lines.append(("labels", text))
    if parity.before and parity.after:
        name = next(iter(parity.before))
        run, file = (_score(name, one[name]) for one in (parity.before, parity.after))
        lines.append(("score", f"{called(name)} {file}; the run's {run}"))
    return lines


def _score(name: str, one: Interval) -> str:
    """A number with its interval.

    >>> from neocog.records import Interval
    >>> _score("accuracy", Interval(value=0.98, low=0.96, high=0.99, n=360))
    '98.0 % (96.0 to 99.0)'
    """
    if is_share(name):
        value, low, high = (100 * x for x in (one.value, one.low, one.high))
        return f"{value:.1f} % ({low:.1f} to {high:.1f})"
    return f"{one.value:.4g} ({one.low:.4g} to {one.high:.4g})"


def _use(found: Exported) -> str:
    """The next step."""
    if found.form == "torch":
        name, _ = ports(found.described)
        return f"torch.export.load({str(found.path)!r}).module()({name})"
    if found.form == "triton":
        return f"tritonserver --model-repository {found.path.parent}"
    return f"neocog predict {found.path} IMAGES; neocog serve {found.path}"
