"""What is inside a trained network, as a page. Floor 5, room verbs.

Every part has a share of the time, and takes as many pictures as that allows, by what one took so
far. A part that does not apply to a network is left out, and the page says why.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from neocog import __version__, html, machine
from neocog.errors import ConfigError, NeocogError
from neocog.explain.landscape.plane import filter_directions, path_directions, project
from neocog.explain.landscape.surface import Samples, surface
from neocog.explain.still.changes import CHANGES
from neocog.explain.still.steady import passes
from neocog.geometry import noun
from neocog.host import memory_kept
from neocog.html import words
from neocog.plots.surface import Track
from neocog.records import Batch
from neocog.report.within import Landscape, Within, page
from neocog.run import open_run
from neocog.verbs.look import Look
from neocog.verbs.result import Result
from neocog.verbs.way import way

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

    from neocog.data.dataset import Dataset
    from neocog.run import Run
    from neocog.verbs.console import Console

__all__ = ["within"]

SECONDS = 60.0
"""What the page may take, about, unless said."""
_POINTS = (30, 1000)
"""Fewest and most pictures of the embedding, and of those that excite channels."""
_STEADY = (16, 1000)
"""Fewest and most pictures that are changed."""
_LANDSCAPE, _LOSSES = 512, 2 * 25 * 64
"""Pictures that the loss is the mean over, at most; and passes of one picture for two of the
smallest grids."""


def within(
    path: Path,
    *,
    minutes: float | None,
    device: str,
    model: str,
    out: Path | None,
    console: Console,
) -> Result:
    """Write the page about the inside of a run's network.

    Args:
        path: the run.
        minutes: how long it may take, about; None: one.
        device: where to compute.
        model: a foreign network, named again.
        out: a folder; None: the run's.
        console: told how far it is.

    Raises:
        RunError: no finished run, its data has changed, or the page cannot be written.
        ConfigError: a network of signals or volumes, or no time.
    """
    if minutes is not None and not minutes > 0:
        raise ConfigError(f"expected minutes above 0, found {minutes:g}")
    run = open_run(path, model=model)
    size = run.bundle.input.size
    if len(size) != 2:
        raise ConfigError(
            f"the page is about networks of pictures, and this one takes {noun(size)}s",
            "from Python, neocog.explain works for them: trace_unit, weight_paths, …",
        )
    data = run.data(console.progress)
    console.done()
    asked = _Asked(run, data, machine.device_named(device), console)
    seconds = SECONDS if minutes is None else 60 * minutes
    with memory_kept():
        found = asked.all(seconds)
    console.done()
    target = html.write(page(found), (out or path) / "inside.html")
    return Result(json=_told(found, str(target)), lines=_lines(found, str(target)))


class _Asked:
    """Everything that a page about a network holds.

    Args:
        run: a finished one.
        data: its data set.
        device: where it computes.
        console: told how far it is.
    """

    def __init__(self, run: Run, data: Dataset, device: torch.device, console: Console) -> None:
        self.run, self.data, self.console = run, data, console
        self.look = Look(run, data, device, console.progress)
        self.missing: list[str] = []

    def all(self, seconds: float) -> Within:
        """Every part in turn."""
        look, each = self.look, self.look.pace
        some = int(min(0.1 * seconds / each, _POINTS[1]))
        often = passes((self.data.size[0], self.data.size[1]))
        changed = int(min(0.25 * seconds / each / often, _STEADY[1]))
        kernels = self._part("kernels", look.kernels)
        points = excited = steady = None
        if self._affords("embedding and exciting patches", some, _POINTS[0]):
            points = self._part("embedding", partial(look.points, some))
            excited = self._part("exciting patches", partial(look.excited, some))
        dreams = self._part("dreams", partial(look.dreams, 0.2 * seconds))
        if dreams and len(dreams) < len(self.data.classes):
            count = len(self.data.classes) - len(dreams)
            classes = words.count(count, "more class", "more classes")
            self.missing.append(f"dreams of {classes}: there was no time")
        if self._affords("changes", changed, _STEADY[0]):
            steady = self._part("changes", partial(look.steady, changed))
        landscapes = self._part("landscape", lambda: self._landscapes(0.2 * seconds))
        name = str(self.run.manifest.config["model"])
        parameters = sum(one.numel() for one in self.look.network.parameters())
        return Within(
            title=f"Inside {name if len(name) < 40 else 'a network in a line'}",
            subtitle=f"What {self.run.path.name} looks for, where its answers hold, and where its "
            "weights lie.",
            facts=(
                ("Run", self.run.path.name),
                ("Parameters", f"{parameters:,}"),
                ("Pictures", f"of the {self.look.part} part"),
            ),
            kernels=kernels,
            excited=excited or (),
            dreams=dreams or (),
            points=points,
            steady=steady,
            landscapes=landscapes or (),
            missing=tuple(self.missing),
            version=__version__,
        )

    def _affords(self, name: str, pictures: int, least: int) -> bool:
        """Whether there is time for enough pictures; if not, the page says so."""
        if pictures < min(least, len(self.data.splits[self.look.part])):
            self.missing.append(
                f"{name}: there was time for {words.count(pictures, 'picture')}, and fewer than "
                f"{least} say little; --minutes gives more"
            )
            return False
        return True

    def _part(self, name: str, make: Callable[[], Any]) -> Any:
        """One part, or nothing with the reason."""
        try:
            return make()
        except NeocogError as error:
            self.missing.append(f"{name}: {error.message}")
            return None

    def _landscapes(self, seconds: float) -> list[Landscape]:
        if self.data.whole:
            raise ConfigError("the loss of whole pictures is not looked at around the weights")
        if _LOSSES * self.look.pace > seconds:
            raise ConfigError("there was no time for a grid of losses", "--minutes gives more")
        ids = self.look.ids("train", _LANDSCAPE)
        samples = Samples(
            inputs=self.look.prepared(ids),
            targets=self.data.targets[ids].to(self.look.device),
            criterion=self._criterion,
        )
        states = way(self.run, self.data)
        share = seconds / (2 if states else 1)
        aside = filter_directions(self.look.network)
        made = surface(
            self.look.network,
            samples,
            directions=aside,
            seconds=share,
            progress=partial(self.console.progress, "landscape"),
        )
        found = [
            Landscape(
                title="Along two random directions",
                surface=made,
                axes=("first random direction", "second random direction"),
                remark="Where it is flat and round, answers survive small changes of weights.",
            )
        ]
        if states:
            found.append(self._along(states, samples, share))
        return found

    def _along(
        self, states: list[Mapping[str, Tensor]], samples: Samples, seconds: float
    ) -> Landscape:
        """The plane that holds most of the way of the training."""
        plane = path_directions(self.look.network, states)
        path = project(self.look.network, states, plane)
        xs, ys = (*path.x, 0.0), (*path.y, 0.0)
        made = surface(
            self.look.network,
            samples,
            directions=plane,
            span=path.span(),
            seconds=seconds,
            progress=partial(self.console.progress, "the training's way"),
        )
        note = f"{100 * path.share:.0f} % of the way lies in the plane"
        return Landscape(
            title="Along the way of the training",
            surface=made,
            axes=("first direction of the way", "second direction of the way"),
            track=Track(x=xs, y=ys, note=note),
            remark="The line joins the weights that the training began with, those of its "
            f"checkpoints ({len(states) - 1}), and those of the network; "
            "--set checkpoint.keep=all keeps those of every epoch.",
        )

    def _criterion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The task's mean loss."""
        count = len(targets)
        ones = torch.ones(count, device=outputs.device)
        batch = Batch(
            images=outputs.new_empty(0),
            targets=targets,
            weights=ones,
            valid=ones.bool(),
            ids=torch.arange(count, device=outputs.device),
        )
        return self.look.task.loss(outputs, batch).mean()


def _told(found: Within, where: str) -> dict[str, Any]:
    """The page in numbers."""
    steady = found.steady
    return {
        "page": where,
        "kernels": found.kernels[1] if found.kernels else None,
        "exciting": [
            {"layer": one.layer, "channel": one.channel, "values": list(one.values)}
            for one in found.excited
        ],
        "dreams": [
            {"class": one.name, "answer": one.answer, "probability": one.probability}
            for one in found.dreams
        ],
        "embedding": None
        if found.points is None
        else {"pictures": len(found.points.kinds), "explained": list(found.points.explained)},
        "steadiness": None
        if steady is None
        else {
            "n": steady.n,
            "shift_consistency": steady.consistency,
            "changes": {
                name: [
                    {
                        "level": level.level,
                        "accuracy": level.accuracy,
                        "agreement": level.agreement,
                        "confidence": level.confidence,
                    }
                    for level in levels
                ]
                for name, levels in steady.changes.items()
            },
        },
        "landscapes": [
            {
                "title": one.title,
                "centre": one.surface.centre,
                "side": len(one.surface.x),
                "samples": one.surface.samples,
            }
            for one in found.landscapes
        ],
        "missing": list(found.missing),
    }


def _lines(found: Within, where: str) -> list[str]:
    """What matters most, for people."""
    lines = []
    if found.steady is not None:
        one = found.steady
        lines.append(
            f"shift consistency {100 * one.consistency:.1f} % over {one.n:,} pictures, shifts of "
            f"up to {one.reach} pixels"
        )
        worst = min(
            (level.agreement, name, level.level)
            for name, of in one.changes.items()
            for level in of
            if level.level != CHANGES[name].none
        )
        lines.append(
            f"most harm: {worst[1].replace('_', ' ')} at {worst[2]:g}, where "
            f"{100 * worst[0]:.1f} % of the answers stay"
        )
        if one.n < _STEADY[0]:
            lines.append(f"warning: {words.count(one.n, 'picture')} say little about that")
    dreamt = [one for one in found.dreams if one.name == one.answer]
    if found.dreams:
        lines.append(f"{len(dreamt)} of {len(found.dreams)} dreamt classes are answered as such")
    lines += [f"not shown: {one}" for one in found.missing]
    return [*lines, f"page: {where}"]
