"""What a network will cost. Floor 5, room verbs."""

from __future__ import annotations

import dataclasses
import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neocog import html, machine
from neocog.config import Recipe
from neocog.errors import ConfigError
from neocog.files import write_atomic
from neocog.models import catalog
from neocog.models.empty import without_memory
from neocog.models.notation.grammar import parse, render
from neocog.planning import How, Plan
from neocog.planning import plan as make_plan
from neocog.planning.page import page as made_page
from neocog.planning.text import span_text
from neocog.run import open_run
from neocog.settings import apply_settings, from_dict, place, to_dict
from neocog.verbs.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

    from neocog.run import Run

__all__ = ["effective", "plan", "recipe_for", "result", "size_of", "write_figure"]

_MOST = 1 << 16
"""Positions along an axis of a sample; more is a slip of the keyboard."""
_LONGEST = 1 << 24
"""Positions of a signal."""
_LONGEST_LINE = 72
"""Characters of a network in a line, where it is a name."""


def plan(
    what: str | Path | nn.Module,
    sample: tuple[int, ...] | None = None,
    *,
    batch: int | None = None,
    recipe: Recipe | None = None,
    outputs: int | None = None,
    model: str = "",
    time: bool = True,
    measure: bool = False,
) -> Plan:
    """What a network is and what it will cost, before it runs.

    Args:
        what: a name that `neocog models` lists, `package.module:factory`, a run folder, or any
            `nn.Module`.
        sample: shape of one sample: C×H×W, or with one or three axes behind the channels. None:
            what the network was published for; a run's own.
        batch: samples of a training step. None: the recipe's, else 32.
        recipe: precision, layout, device and optimiser; None: the usual ones; a run's own.
        outputs: width of the last layer of a network of the catalogue. None: 1,000; 10 for
            samples of up to 64 pixels; 21, as PASCAL VOC has, where each pixel is answered for.
        model: names a run's foreign factory again, which is then run.
        time: say how long, too; that needs a profile of this machine, measured once.
        measure: time every distinct operation of this network.

    Raises:
        ConfigError: an unknown name, or a size that the network does not take.
        RunError: the run is not finished, or damaged.
        TraceError: the network cannot be understood without numbers; with module path and line.
    """

    found = _found(what, sample, recipe, outputs, model, "meta")
    return make_plan(
        found.network,
        found.sample,
        name=found.name,
        how=_how(found.recipe, batch),
        rule=found.recipe.optim,
        time=time,
        measure=measure,
    )


def effective(
    what: str | Path | nn.Module,
    sample: tuple[int, ...] | None = None,
    *,
    layer: str = "",
    recipe: Recipe | None = None,
    outputs: int | None = None,
    model: str = "",
) -> Figure:
    """The effective receptive field of a layer's centre unit, as a picture.

    How much each pixel really counts, by the gradient (Luo et al. 2016, arXiv 1701.04128), with the
    theoretical field around it. A network that is no run's has fresh weights.

    Args:
        what: as for `plan`.
        sample: as for `plan`; C×H×W.
        layer: a module's path; empty: the last map.
        recipe: as for `plan`.
        outputs: as for `plan`.
        model: as for `plan`.

    Raises:
        ConfigError: as `plan` does; or no such layer, or one without a map.
    """
    from neocog import plots
    from neocog.analysis.effective import effective_field

    found = _found(what, sample, recipe, outputs, model, "cpu")
    field = effective_field(found.network, found.sample, layer)
    where = field.layer or "the last map"
    return plots.effective(
        field.weights,
        box=field.box,
        square=field.square,
        size=field.size,
        side=field.side,
        title=f"Effective receptive field: {where} of {found.name}",
    )


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure as a picture.

    Raises:
        ConfigError: the ending is neither `.svg` nor `.png`.
        RunError: the file cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("svg", "png"):
        raise ConfigError(f"{path} is neither .svg nor .png", "give the file one of these endings")
    page = io.BytesIO()
    figure.savefig(page, format=kind, dpi=200)
    write_atomic(path, page.getvalue())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A network, wherever it came from."""

    network: nn.Module
    name: str
    sample: tuple[int, ...]
    recipe: Recipe


def _found(
    what: object,
    sample: tuple[int, ...] | None,
    recipe: Recipe | None,
    outputs: int | None,
    model: str,
    device: str,
) -> _Found:
    """The network that is meant; one of the catalogue is built on `device`."""
    from torch import nn

    if isinstance(what, nn.Module):
        if sample is None:
            raise ConfigError(
                "a module needs the shape of a sample", "neocog.plan(net, (3, 32, 32))"
            )
        _no_outputs(outputs)
        name = type(what).__name__
        return _Found(network=what, name=name, sample=sample, recipe=recipe or Recipe())
    if not isinstance(what, str | Path):
        raise ConfigError(
            f"expected a name, a run's folder or a torch.nn.Module, found {type(what).__name__}",
            'neocog.plan("resnet18"), or neocog.plan(net, (3, 32, 32))',
        )
    if _is_run(what):
        _no_outputs(outputs)
        run = open_run(what, model=model)
        spec = run.bundle.input
        return _Found(
            network=run.bundle.network(model),
            name=f"{_shown(run.manifest.config['model'])} of {what}",
            sample=sample or (spec.channels, *spec.size),
            recipe=recipe or run.recipe,
        )
    recipe, name = recipe or Recipe(), str(what)
    if os.sep in name and ";" not in name and not catalog.is_foreign(name):
        raise ConfigError(
            f"{name} is neither a network of the catalogue nor the folder of a run",
            "`neocog models` lists the networks; a run's folder holds manifest.json",
        )
    sample = sample or catalog.sample(name)
    network = _built(name, sample, outputs, recipe, device)
    return _Found(network=network, name=_shown(name), sample=sample, recipe=recipe)


def _shown(name: str) -> str:
    """A network's name for people: a network in a line on one line, of a long one both ends.

    >>> _shown("conv 32 3;\\n  relu;\\n  linear")
    'conv 32 3; relu; linear'
    """
    if not catalog.is_line(name):
        return name
    line, half = render(parse(name)), _LONGEST_LINE // 2
    return line if len(line) <= _LONGEST_LINE else f"{line[:half]}…{line[1 - half :]}"


def _is_run(what: str | Path) -> bool:
    if isinstance(what, Path) or what in catalog.CATALOG:
        return isinstance(what, Path)
    try:
        return (Path(what) / "manifest.json").is_file()
    except (OSError, ValueError):  # a line that is too long to be a path
        return False


def _no_outputs(outputs: int | None) -> None:
    if outputs is not None:
        raise ConfigError(
            "--outputs is for networks that are built here", "this one has its last layer already"
        )


def _built(
    name: str, sample: tuple[int, ...], outputs: int | None, recipe: Recipe, device: str
) -> nn.Module:
    """A network of the catalogue or of the user's; on `meta` its weights take no memory."""
    import torch

    channels, size = sample[0], tuple(sample[1:])
    entry = catalog.CATALOG.get(name)
    usual = 21 if entry and entry.gives == "map" else 10 if max(size) <= 64 else 1000
    wide = usual if outputs is None else outputs
    with without_memory() if device == "meta" else torch.device(device):
        return catalog.build(
            name, channels=channels, size=size, outputs=wide, args=recipe.model_args
        )


def _how(recipe: Recipe, batch: int | None) -> How:
    engine = recipe.engine
    return How(
        batch=next(one for one in (batch, engine.batch, How().batch) if one is not None),
        precision="fp32" if engine.precision == "auto" else engine.precision,
        channels_last=engine.layout == "channels_last",
        device=str(machine.device_named(engine.device)),
        optimizer=recipe.optim.name,
    )


def size_of(text: str) -> tuple[int, ...]:
    """`3x224x224` as numbers.

    Raises:
        ConfigError: something else, or a size out of range.

    >>> size_of("3x224x224"), size_of("1×28×28"), size_of("2,16000")
    ((3, 224, 224), (1, 28, 28), (2, 16000))
    """
    parts = re.split(r"[x×,*]", text.strip().lower())
    whole = all(part.strip().isascii() and part.strip().isdigit() for part in parts)
    if not (2 <= len(parts) <= 4 and whole):
        raise ConfigError(f"{text!r} is no size, expected CxHxW", "for example --input 3x224x224")
    sizes = tuple(int(part) for part in parts if len(part) < 10)
    most = _LONGEST if len(parts) == 2 else _MOST
    if len(sizes) != len(parts) or not all(1 <= size <= most for size in sizes):
        raise ConfigError(f"{text!r} is out of range, expected 1 to {most} along each axis")
    return sizes


def recipe_for(
    what: str, settings: tuple[str, ...], *, device: str | None, precision: str | None
) -> Recipe:
    """A run's recipe, or the usual one, with what was said on the command line.

    Raises:
        ConfigError: an unknown setting, with the near one.
    """
    values = to_dict(open_run(what).recipe) if _is_run(what) else {}
    for path, value in (("engine.device", device), ("engine.precision", precision)):
        if value is not None:
            values = place(values, path, value)
    return from_dict(Recipe, apply_settings(values, settings))


def result(
    made: Plan,
    *,
    layer: str = "",
    drawing: Path | None = None,
    page: Path | None = None,
    what: str = "",
) -> Result:
    """A plan on the terminal, or the arithmetic of one of its layers.

    Args:
        made: the plan.
        layer: names a layer: its arithmetic only.
        drawing: where to write the network as an SVG file.
        page: where to write all of it as a page.
        what: the network's name or the run's folder; a run also has epochs.

    Raises:
        ConfigError: no such layer.
        RunError: the drawing or the page cannot be written.
    """
    if layer:
        words = made.why(layer)
        found = next(one for one in made.json["layers"] if one["name"] == layer)
        values, shown = {"layer": found, "why": words}, words.splitlines()
    else:
        values, shown = dict(made.json), str(made).splitlines()
    if drawing is not None:
        write_atomic(drawing, made.drawing().encode())
        shown += ["", f"drawn: {drawing}"]
        values["drawing"] = str(drawing)
    if page is not None:
        html.write(made_page(made), page)
        shown += ["", f"page: {page}"]
        values["page"] = str(page)
    if what and not layer and _is_run(what) and made.costs and made.costs.seconds:
        epoch = _epoch(open_run(what), made.costs.how.batch, made.costs.seconds)
        values["training"] = {**values["training"], "epoch_seconds": epoch}
        ends = [span_text(epoch[end]) for end in ("value", "low", "high")]
        shown += ["", f"an epoch of this run: {ends[0]} ({ends[1]} to {ends[2]})"]
    return Result(json=values, lines=shown)


def _epoch(run: Run, batch: int, seconds: Any) -> dict[str, float]:
    """Seconds of an epoch of a run's training part."""
    samples = int(run.manifest.data["splits"]["train"])
    steps = max(1, -(-samples // batch))
    return dataclasses.asdict(seconds.times(steps))
