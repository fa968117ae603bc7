"""The page about a run's answers for pictures. Floor 5, room verbs."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neocog import html, machine, plots, tasks
from neocog.errors import ConfigError, NeocogError
from neocog.explain.look.maps import feature_maps, map_tiles
from neocog.explain.look.sheets import sheet
from neocog.explain.still.changes import CHANGES
from neocog.explain.why.methods import METHODS
from neocog.files import write_atomic
from neocog.geometry import noun
from neocog.host import memory_kept
from neocog.plots.steady import Response, responses
from neocog.plots.whymaps import enlarged, why_overlay
from neocog.report.explained import Explained, Hiding, Scrambled, Sheet, Whole, WhyMap
from neocog.report.explained import page as made_page
from neocog.run import open_run
from neocog.verbs.predict import expanded
from neocog.verbs.result import Result
from neocog.verbs.tracer import clickable
from neocog.verbs.why import chosen_methods, output_named, reasons

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from neocog.explain.still.steady import Curve
    from neocog.explain.why.attribution import Attribution
    from neocog.layers import Predictor
    from neocog.run import Run
    from neocog.verbs.console import Console
    from neocog.verbs.explain import Asked
    from neocog.verbs.why import Reasons

__all__ = ["page"]

MOST = 12
"""Pictures on a page."""
_PAGE, _NUMBERS = 4_600_000, 2_200_000
"""Bytes of a page, and of the numbers to click through in it, at most."""
_SCRIPT = 60_000
"""Bytes of what computes with them there."""
_SHEETS = 4
"""Layers whose maps are shown."""


def page(path: Path, images: Sequence[str], asked: Asked, console: Console) -> Result:
    """Write the page, and each map as a picture of its own beside it.

    Args:
        path: the run.
        images: files and folders.
        asked: what is wanted.
        console: told how far it is.

    Raises:
        RunError: no finished run, or a file that cannot be written.
        ConfigError: an unknown method, class or layer; a network of signals or volumes; too many
            pictures for one page.
        DataError: a folder without images.
    """
    methods = chosen_methods(asked.methods)
    if asked.layer and not any(METHODS[name].layer for name in methods):
        takes = ", ".join(name for name, one in METHODS.items() if one.layer)
        raise ConfigError(f"no method that was asked for takes a layer: {asked.layer}", takes)
    run = open_run(path, model=asked.model)
    size = run.bundle.input.size
    if len(size) != 2:
        raise ConfigError(
            f"the page is about pictures, and this network takes {noun(size)}s",
            "--trace and --weight work for them, and so does neocog.explain in Python",
        )
    if asked.target:
        output_named(asked.target, run.bundle.classes)
    files = [file for file, _ in expanded(images)]
    count = len(files) + asked.mistakes
    if count > MOST:
        raise ConfigError(
            f"a page shows at most {MOST} pictures, found {count}",
            "name fewer, or call it several times with other --out",
        )
    folder = asked.out or path / "explained"
    shown: list[Explained] = []
    found: list[dict[str, Any]] = []
    looked: list[_Picture] = []
    whole, names = _Whole(run), set[str]()
    predictor = run.predictor(machine.device_named(asked.device))
    with contextlib.closing(_answered(run, files, asked)) as answers, memory_kept():
        for entry, sample in answers:
            if sample is None:
                found.append(entry)
                continue
            one = _Picture(run, predictor, entry, sample, asked, methods)
            made = one.reasons(console)
            shown.append(one.explained(made))
            looked.append(one)
            whole.take(made)
            found.append(one.told(made, one.write(made, folder, names)))
    console.done()
    lines = list(_lines(found))
    values: dict[str, Any] = {"run": str(path), "images": found, "page": None}
    if shown:
        where = html.write(_fitted(shown, looked, whole.told()), folder / "explained.html")
        values["page"] = str(where)
        lines.append(f"page: {where}")
    return Result(json=values, lines=lines)


def _answered(
    run: Run, files: Sequence[str], asked: Asked
) -> Generator[tuple[dict[str, Any], Tensor | None]]:
    """Answers for files, and then for the worst mistakes, which also have a `truth`."""
    with contextlib.closing(run.answers(files, device=asked.device)) as found:
        yield from found
    if asked.mistakes:
        yield from _mistaken(run, asked)


def _mistaken(run: Run, asked: Asked) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """The held-out samples with the largest loss that are answered wrongly.

    Raises:
        RunError: the run's data has changed.
        ConfigError: nothing was held out, or nothing of it is answered wrongly.
    """
    data, task = run.data(), tasks.build(run.bundle.task)
    part = next((name for name in ("test", "val") if name in data.splits), "")
    if not part or data.whole:
        raise ConfigError("this run has no held-out mistakes to explain", "name images")
    device = machine.device_named(asked.device)
    losses = run.score(data, part, device)[1].losses
    order = data.splits[part][losses.argsort(descending=True, stable=True)]
    predictor, count = run.predictor(device), 0
    for some in torch.split(order, 64):
        raw = data.images.gather(some, data.size)
        with torch.no_grad():
            answers = task.answer(predictor(raw.to(device)).cpu())
        truths = task.truth(data.targets[some])
        for row, (answer, truth) in enumerate(zip(answers, truths, strict=True)):
            if answer["label"] != truth:
                yield {"path": data.names[int(some[row])], "truth": truth, **answer}, raw[row]
                count += 1
            if count == asked.mistakes:
                return
    if not count:
        raise ConfigError("this run makes no held-out mistakes", "name images")


def _fitted(shown: Sequence[Explained], looked: Sequence[_Picture], whole: Whole) -> html.Page:
    """The page, with as many numbers to click through as there is room for beside the pictures."""
    bare = made_page(shown, whole)
    room = _PAGE - len(html.render(bare).encode()) - _SCRIPT
    # What is coded as text takes four bytes for three, and what is around it some thousands more.
    each = min(_NUMBERS, room * 3 // 4) // len(looked) - 10_000
    if each < 10_000:
        return bare
    return made_page(
        [one.clickable(made, each) for one, made in zip(looked, shown, strict=True)], whole
    )


class _Whole:
    """What is said of the network itself.

    Args:
        run: of the network.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.scrambled: dict[str, Scrambled] = {}

    def take(self, found: Reasons) -> None:
        """Of the first picture that has it."""
        for name, one in found.sanity.items():
            made = Scrambled(
                method=METHODS[name].title, layers=one.layers, similarity=one.similarity
            )
            self.scrambled.setdefault(name, made)

    def told(self) -> Whole:
        """For the page."""
        bundle, views = self.run.bundle, self.run.bundle.input.views
        remarks: tuple[str, ...] = ()
        if views != "one":
            remarks = (
                f"Answers are the mean over several views of a picture ({views}); maps and numbers "
                "are those of the picture itself.",
            )
        return Whole(
            name=f"{bundle.model.name} of {self.run.path.name}",
            facts=(("Run", self.run.path.name), ("Network", bundle.model.name)),
            scrambled=tuple(self.scrambled.values()),
            remarks=remarks,
        )


class _Picture:
    """One picture, and what is found about its answer.

    Args:
        run: that answers.
        predictor: of the run.
        entry: of `Run.answers`.
        sample: C×H×W uint8, as the network takes it.
        asked: what is wanted.
        methods: names of maps.
    """

    def __init__(
        self,
        run: Run,
        predictor: Predictor,
        entry: dict[str, Any],
        sample: Tensor,
        asked: Asked,
        methods: Sequence[str],
    ) -> None:
        self.run, self.predictor, self.entry, self.sample = run, predictor, entry, sample
        self.asked, self.methods = asked, methods
        self.classes = run.bundle.classes
        self.answers = _answers(entry)
        self.label = asked.target or self.answers[0][0]

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """H×W×C."""
        found: NDArray[np.uint8] = self.sample.permute(1, 2, 0).contiguous().numpy()
        return found

    @property
    def x(self) -> Tensor:
        """1×C×H×W as the network takes it."""
        device = next(self.predictor.parameters()).device
        found: Tensor = self.predictor.normalize(self.predictor.fit(self.sample[None].to(device)))
        return found

    def reasons(self, console: Console) -> Reasons:
        """What the answer goes by."""
        name = Path(self.entry["path"]).name
        return reasons(
            self.predictor,
            self.sample,
            target=output_named(self.label, self.classes),
            methods=self.methods,
            layer=self.asked.layer,
            classes=self.run.bundle.task.name == "classify",
            progress=lambda what, done, total: console.progress(f"{name}: {what}", done, total),
        )

    def clickable(self, made: Explained, numbers: int) -> Explained:
        """The same with its activations to click through, which take so many bytes at most."""
        try:
            tracer = clickable(
                self.predictor.network,
                self.x,
                self.pixels,
                name=str(self.entry["path"]),
                labels=self.classes,
                budget=numbers,
            )
        except NeocogError as error:
            why = f"activations to click through: {error.message}"
            return dataclasses.replace(made, remarks=(*made.remarks, why))
        return dataclasses.replace(made, tracer=tracer)

    def explained(self, found: Reasons) -> Explained:
        """For the page."""
        remarks = [*found.missing, *self._undecided(found)]
        features: tuple[Sheet, ...] = ()
        with contextlib.suppress(NeocogError):  # a network without maps has none to show
            features = tuple(self._sheets())
        return Explained(
            name=_short(str(self.entry["path"])),
            picture=self.pixels,
            answers=self.answers,
            truth=self.entry.get("truth"),
            target=self.label,
            maps=tuple(_map(one) for one in found.maps),
            hiding=tuple(self._hiding(found)),
            curves=tuple(self._curves(found)),
            features=features,
            remarks=tuple(remarks),
        )

    def _sheets(self) -> Iterator[Sheet]:
        """Feature maps of some layers, from the first to the last."""
        made = feature_maps(self.predictor.network, self.x[0])
        made = tuple(one for one in made if min(one.values.shape[1:]) > 1)
        count = min(_SHEETS, len(made))
        for at in range(count):
            one = made[round(at * (len(made) - 1) / max(1, count - 1))]
            tiles = map_tiles(one.values, most=32)
            shape = "×".join(map(str, one.values.shape))
            many = f"the {len(tiles.numbers)} strongest of " * (
                len(tiles.numbers) < len(one.values)
            )
            yield Sheet(
                pixels=sheet(tiles),
                alt=f"Feature maps of {one.layer}",
                caption=f"{one.layer}, {shape}: {many}its channels, the strongest first, each with "
                "a scale of its own" + ("; grey is 0." if tiles.scale == "signed" else "."),
            )

    def _hiding(self, found: Reasons) -> Iterator[Hiding]:
        """What must be hidden, and what must be seen."""
        how = {"blur": "blurred", "mean": "painted in the mean colour"}[str(found.fill)]
        for one, seen in ((found.hidden, False), (found.seen, True)):
            if one is None or not one.found or one.mask.all() == (not seen):
                continue
            asked = f"Hidden means {how}. "
            if self.label != self.answers[0][0]:
                asked += f"This is about the answer, {self.answers[0][0]}. "
            if seen:
                asked += "As much as can be hidden while the answer stays"
            else:
                asked += "As little as must be hidden for another answer"
            yield Hiding(
                mask=~one.mask if seen else one.mask,
                answer=self.classes[one.after],
                words=asked,
            )

    def _undecided(self, found: Reasons) -> Iterator[str]:
        """What hiding cannot tell."""
        if found.hidden is None:
            return
        if not found.hidden.found:
            yield "However much of the picture is hidden, the answer stays."
        answer, once = self.answers[0][0], self.classes[found.hidden.before]
        if once != answer:
            yield (
                f"Looked at once, without its other views, the picture is answered {once}, not "
                f"{answer}: what must be hidden is about that."
            )

    def _curves(self, found: Reasons) -> Iterator[html.Figure]:
        """What becomes of the probability."""
        if not found.curves:
            return
        panels = [_panel(name, curve) for name, curve in found.curves.items()]
        drawn = responses(
            panels,
            title=f"Probability of {self.label}",
            value="probability",
            band="lowest to highest of several ways",
        )
        yield html.Figure(
            svg=plots.svg(drawn),
            alt=f"The probability of {self.label} over the amount of each change.",
        )

    def write(self, found: Reasons, folder: Path, names: set[str]) -> dict[str, str]:
        """Each map as a PNG: method → path.

        Args:
            found: with the maps.
            folder: where they go.
            names: those of earlier pictures, none of which is written over.
        """
        name = re.sub(r"[^\w.-]+", "-", Path(str(self.entry["path"])).stem) or "picture"
        numbered = (f"{name}-{at}" for at in itertools.count(2))
        stem = next(one for one in itertools.chain([name], numbered) if one.lower() not in names)
        names.add(stem.lower())
        files = {}
        for one in found.maps:
            image = enlarged(why_overlay(self.pixels, one.values[0].numpy()))
            target = folder / f"{stem}-{one.method}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, _png(image))
            files[one.method] = str(target)
        return files

    def told(self, found: Reasons, files: dict[str, str]) -> dict[str, Any]:
        """In numbers."""
        maps = {}
        for one in found.maps:
            flat = one.values[0].sum(0)
            place = np.unravel_index(int(flat.abs().argmax()), tuple(flat.shape))
            share = one.gap_share
            maps[one.method] = {
                "file": files[one.method],
                "strongest": [int(at) for at in place],
                "sum": float(one.values.sum()) if METHODS[one.method].complete else None,
                "gap": None if share is None else float(share[0]),
                "layer": one.layer or None,
            }
        parts = {
            name: None
            if one is None
            else {"share": one.share, "answer": self.classes[one.after], "found": one.found}
            for name, one in (("hidden", found.hidden), ("seen", found.seen))
        }
        known = {name: value for name, value in self.entry.items() if name != "mask"}
        return {**known, "target": self.label, "maps": maps, **parts}


def _short(path: str) -> str:
    """The file and its folder.

    >>> _short("/home/me/photos/cat/001.jpg"), _short("sounds.npz[3]")
    ('cat/001.jpg', 'sounds.npz[3]')
    """
    return "/".join(Path(path).parts[-2:])


def _answers(entry: dict[str, Any]) -> tuple[tuple[str, float], ...]:
    """Labels and probabilities, the most probable first; of masks shares of the picture.

    Raises:
        ConfigError: numbers are answered.
    """
    if entry.get("shares"):
        return tuple((str(name), float(share)) for name, share in entry["shares"].items())
    if not entry["top"]:
        raise ConfigError(
            "the page explains classes, and this network answers with numbers",
            "--trace and --weight work for it, and so does neocog.explain in Python",
        )
    return tuple((str(one["label"]), float(one["probability"])) for one in entry["top"])


def _map(one: Attribution) -> WhyMap:
    share = one.gap_share
    return WhyMap(
        name=METHODS[one.method].title,
        description=METHODS[one.method].description,
        values=one.values[0].numpy(),
        gap=None if share is None or not math.isfinite(float(share[0])) else float(share[0]),
        note=one.note,
    )


def _panel(name: str, curve: Curve) -> Response:
    change = CHANGES[name]
    still = curve.said[curve.levels.index(change.none)]
    return Response(
        name=name.replace("_", " "),
        unit=change.unit,
        levels=curve.levels,
        none=change.none,
        value=curve.mean,
        low=curve.low,
        high=curve.high,
        otherwise=[said != still for said in curve.said],
        log=name in ("scale", "brightness"),
    )


def _png(pixels: NDArray[np.uint8]) -> bytes:
    import io

    from PIL import Image

    page = io.BytesIO()
    Image.fromarray(pixels).save(page, "png")
    return page.getvalue()


def _lines(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A line or two for each picture."""
    for one in found:
        if "error" in one:
            yield f"{one['path']}  not read: {one['error']}"
            continue
        share = one.get("probability")
        sure = "" if share is None else f"  {100 * share:.1f} %"
        yield f"{one['path']}  {one['label']}{sure}"
        hidden, seen = one["hidden"], one["seen"]
        if hidden and hidden["found"]:
            yield f"  hide {100 * hidden['share']:.0f} % of it, and it becomes {hidden['answer']}"
        if seen and seen["found"] and seen["share"]:
            yield f"  show {100 * seen['share']:.0f} % of it, and it stays {seen['answer']}"
        elif seen and seen["found"]:
            yield "  hide all of it, and it stays: that is the answer to nothing"
