"""Training images a second, side by side: `python benchmarks/rates.py FIGURE`.

In each round every side is a fresh process on the same processors, and they train in turn (A B C
C B A …, see `contest`), so that a machine that drifts treats all alike. Ratios are taken within a
turn. Written are `results/FIGURE.json`, `results/FIGURE.svg` and the figure's section of README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import machine
import pages
from contest import ISA, Contender, NoAnswerError, Setting, started
from figures import BARE, FIGURES, SIDES, Figure

from neocog.host import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]

TURNS = 4
"""Of each side in a round."""
BUSY = 0.2
"""Processors that others keep busy, on average, above which a figure is worth little."""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _quickened(figure: Figure) -> Figure:
    """The figure as small as it can be, to see that every side works."""
    batch = min(figure.batch, 32)
    return replace(figure, batch=batch, images=2 * batch, seconds=0.0)


def _fill(figure: Figure, setting: Setting) -> tuple[Figure, str]:
    """Write the pictures; the figure with their number, and what they are called."""
    import pictures

    file = setting.work / f"{figure.name}.npz"
    unfit = []
    for source, name in setting.data.items():
        try:
            images = pictures.take(file, figure, figure.images, source)
        except pictures.UnfitError as error:
            unfit.append(str(error))
        else:
            return replace(figure, images=images), name
    if unfit and not setting.synthetic:
        raise SystemExit("\n".join(unfit))
    if unfit:
        _say(f"{figure.name}: no data set given fits; synthetic pictures instead")
    pictures.make(file, figure, figure.images)
    return figure, "synthetic"


def measure(figure: Figure, setting: Setting) -> dict[str, Any]:
    """All rounds of all sides of a figure."""
    import nets  # loads torch

    if setting.quick:
        figure = _quickened(figure)
    before = machine.describe()
    figure, data = _fill(figure, setting)
    facts = nets.facts(figure)
    sides: dict[str, dict[str, Any]] = {
        side: {"how": SIDES[side].how, "rounds": []} for side in setting.sides
    }
    watch, began = Watch(), time.monotonic()
    fastest = setting.choice
    ceilings = [side for side in sides if SIDES[side].module == BARE]
    if ceilings and not fastest:
        fastest = _search(figure, setting, facts, ceilings[0], sides)
    for number in range(1, setting.rounds + 1):
        _round(figure, setting, facts, f"{number}/{setting.rounds}", fastest, sides)
    for found in sides.values():
        _summarise(found)
    others = watch.others()
    if others is not None and others > BUSY:
        _say(f"{figure.name}: other programs kept {others:.1f} processors busy; measure again")
    return {
        "figure": asdict(figure),
        "net": facts,
        "data": data,
        "rounds": setting.rounds,
        "turns": 1 if setting.quick else TURNS,
        "threads": setting.threads,
        "compile": setting.compile,
        "isa": setting.isa,
        "machine": before | {"busy_with_others": others},
        "minutes": round((time.monotonic() - began) / 60, 1),
        "sides": sides,
        "ratios": _ratios(figure, sides),
    }


def _fail(found: dict[str, Any], where: str, error: NoAnswerError) -> None:
    """Keep why a side did not run; it is not tried again."""
    found["failed"] = str(error)
    _say(f"{where}: did not run: {error}\n{error.said}")


def _search(
    figure: Figure, setting: Setting, facts: Any, side: str, sides: dict[str, Any]
) -> dict[str, Any]:
    """The bare loop's fastest configuration; the candidates are kept beside."""
    try:
        with started(figure, side, setting, facts, {}) as one:
            about = one.answer()["about"]
    except NoAnswerError as error:
        for ceiling, found in sides.items():
            if SIDES[ceiling].module == BARE:
                _fail(found, f"{figure.name} {ceiling}", error)
        return {}
    sides[side]["candidates"] = about["candidates"]
    choice: dict[str, Any] = about["choice"]
    _say(f"{figure.name} {side}: {choice}")
    return choice


def _round(
    figure: Figure,
    setting: Setting,
    facts: Any,
    number: str,
    fastest: dict[str, Any],
    sides: dict[str, dict[str, Any]],
) -> None:
    """Start all sides, let them train in turn, and keep what they answer."""
    crew: dict[str, Contender] = {}
    choices = [fastest]

    def go(side: str, do: Callable[[], Any]) -> Any:
        """Something with one side; None, and it has failed, where that ends without an answer."""
        try:
            return do()
        except NoAnswerError as error:
            crew.pop(side)
            _fail(sides[side], f"{figure.name} {number} {side}", error)
            return None

    with contextlib.ExitStack() as stack:
        for side, found in sides.items():
            if "failed" in found:
                continue
            more = {"choices": choices} if SIDES[side].module == BARE else {}
            crew[side] = stack.enter_context(started(figure, side, setting, facts, more))
            about = go(side, crew[side].first)
            if side == "ours" and about:
                # The bare loop also tries what our tuner took in the same round.
                mine = about | {"compile": about["compile"] == "on"}
                choices = [fastest, *([mine] if mine != fastest else [])]
        for turn in range(1 if setting.quick else TURNS):
            # There and back: what changes steadily meanwhile changes for all alike.
            for side in list(crew) if turn % 2 == 0 else list(crew)[::-1]:
                go(side, crew[side].turn)
        for side in list(crew):
            if one := go(side, crew[side].answer):
                sides[side]["rounds"].append({"rates": one["rates"], "about": one["about"]})
                sides[side]["versions"] = one["versions"]
                rate = statistics.median(one["rates"])
                _say(f"{figure.name} {number} {side}: {rate:,.0f} images/s")


def _summarise(found: dict[str, Any]) -> None:
    """Median of all turns, and their range."""
    rates = [rate for one in found["rounds"] for rate in one["rates"]]
    if rates:
        found["median"] = statistics.median(rates)
        found["low"], found["high"] = min(rates), max(rates)


def _group(sides: dict[str, Any], over: str) -> list[str]:
    """The sides that a bar's word means, those that answered."""
    return [
        side
        for side, found in sides.items()
        if (side == over or side.startswith(f"{over}-")) and "median" in found
    ]


def _ratios(figure: Figure, sides: dict[str, Any]) -> list[dict[str, Any]]:
    """Ours over the others: the median of the rounds' ratios, their range, and the bar."""
    bars = {bar.over: bar.least for bar in figure.bars}
    found: list[dict[str, Any]] = []
    ours = sides.get("ours", {})
    for over in ("bare", "tutorial", "lightning", "keras"):
        rivals = _group(sides, over)
        if "median" not in ours or not rivals:
            continue
        best = max(rivals, key=lambda side: sides[side]["median"])
        pairs = list(zip(ours["rounds"], sides[best]["rounds"], strict=False))
        found.append(
            _ratio(over, best, [_within(mine["rates"], other["rates"]) for mine, other in pairs])
            | {"bar": bars.get(over)}
        )
        if over == "bare":
            # What was tried last is our tuner's choice: what is left is what our loop costs.
            alike = [
                _within(mine["rates"], other["about"]["tried"][-1]["rates"])
                for mine, other in pairs
            ]
            found.append(_ratio(over, f"{best}, configured alike", alike) | {"bar": None})
    for one in found:
        one["met"] = None if one["bar"] is None else one["value"] >= one["bar"]
    return found


def _within(mine: list[float], other: list[float]) -> float:
    """The ratio of a round: the median of its turns' ratios."""
    return statistics.median(one / two for one, two in zip(mine, other, strict=True))


def _ratio(over: str, side: str, rounds: list[float]) -> dict[str, Any]:
    """The ratio of a figure from those of its rounds."""
    return {
        "over": over,
        "side": side,
        "value": statistics.median(rounds),
        "low": min(rounds),
        "high": max(rounds),
        "rounds": rounds,
    }


def _setting_of(found: dict[str, Any]) -> str:
    """What a side chose for itself, in a few words; all choices where rounds differ."""
    said = []
    for one in found["rounds"]:
        about = one["about"]
        words = [str(about[key]) for key in ("precision", "layout") if key in about]
        if about.get("compile") in (True, "on"):
            words.append("compiled")
        if "threads" in about:
            words.append(f"threads: {about['threads']}")
        said.append(", ".join(words))
    return "; or ".join(dict.fromkeys(said))


def _failures(result: dict[str, Any]) -> list[str]:
    """A line for each side that did not run, or not in all rounds, with the reason."""
    lines = []
    for side, one in result["sides"].items():
        if "failed" in one:
            done = len(one["rounds"])
            when = (
                f"did not run after {done} of {result['rounds']} rounds" if done else "did not run"
            )
            lines += ["", f"`{side}` {when}: {one['failed']}."]
    return lines


def report(name: str, result: dict[str, Any], home: Path) -> list[str]:
    """The section of one figure, as lines of Markdown; draws the plot."""
    sides = {side: one for side, one in result["sides"].items() if "median" in one}
    bars = {side: (one["median"], one["low"], one["high"]) for side, one in sides.items()}
    if not bars:
        return ["No side answered.", *_failures(result)]
    title = result["figure"]["title"]
    lines = [pages.plot(home, name, title, "training images per second", bars), ""]
    batch = result["figure"]["batch"]
    lines += pages.table(
        ["side", "images/s", "lowest to highest", "ms a step", "how"],
        [
            [
                side,
                f"{one['median']:,.0f}",
                f"{one['low']:,.0f} to {one['high']:,.0f}",
                f"{1000 * batch / one['median']:.1f}",
                f"{one['how']} ({_setting_of(one)})",
            ]
            for side, one in sides.items()
        ],
    )
    rows = []
    for one in result["ratios"]:
        bar = "none" if one["bar"] is None else f"≥ {one['bar']:g}"
        verdict = {None: "", True: "met", False: "**missed**"}[one["met"]]
        spread = f"{one['low']:.2f} to {one['high']:.2f}"
        rows.append([f"ours / {one['side']}", f"{one['value']:.2f}", spread, bar, verdict])
    if rows:
        lines += ["", *pages.table(["ratio", "median", "in the rounds", "bar", ""], rows)]
    lines += _failures(result)
    versions: dict[str, str] = {}
    for one in sides.values():
        versions |= one["versions"]
    listed = ", ".join(f"{package} {version}" for package, version in sorted(versions.items()))
    where = machine.words(result["machine"])
    forced = f", PyTorch held to {result['isa']}" if result["isa"] else ""
    busy = result["machine"]["busy_with_others"]
    times = f"{result['rounds']} rounds of {result['turns']} turns"
    idle = "" if busy is None else f" Other programs kept {busy:.1f} cores busy meanwhile."
    lines += [
        "",
        f"{times}, {result['threads']} threads{forced}, "
        f"{result['data']} pictures, {result['figure']['images']:,} an epoch, "
        f"compiling {result['compile']}; "
        f"{result['minutes']:.0f} minutes. {where}; {listed}.{idle}",
    ]
    return lines


def _choice(text: str, threads: int) -> dict[str, Any]:
    """`bf16,channels_last,4,compile` as the bare loop takes it."""
    if not text:
        return {}
    precision, layout, *rest = text.split(",")
    if precision not in ("fp32", "bf16") or layout not in ("contiguous", "channels_last"):
        raise SystemExit(f"--choice is like bf16,channels_last,4 or …,4,compile, got {text}")
    numbers = [int(word) for word in rest if word.isdigit()]
    return {
        "precision": precision,
        "layout": layout,
        "threads": numbers[0] if numbers else threads,
        "compile": "compile" in rest,
    }


def _source(text: str) -> tuple[str, str]:
    """`NAME=SOURCE` as (absolute source, name)."""
    name, equals, source = text.partition("=")
    if not equals or Path(text).exists():
        name, source = "real", text
    return (str(Path(source).resolve()) if Path(source).exists() else source, name)


def _arguments() -> argparse.Namespace:
    minutes = ", ".join(f"{figure.name} {figure.minutes}" for figure in FIGURES.values())
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Minutes that three rounds of all sides take on two slow processors with nothing "
        f"else to do: {minutes}. Every side has four turns of some seconds a round; most of the "
        "rest is starting, tuning and compiling.",
    )
    add = parser.add_argument
    add("figure", choices=[*FIGURES, "all"])
    add("--sides", default=",".join(SIDES), help="which, separated by commas (default: all)")
    add("--rounds", type=int, default=3, help="fresh starts of each side (default: 3, the least)")
    add("--threads", type=int, default=machine.cores(), help="processors of every side")
    add(
        "--data",
        action="append",
        default=[],
        metavar="[NAME=]SOURCE",
        help="a real set: folder, IDX, archive …, and what the page calls it; several times for "
        "several sets, of which a figure takes the first that fits (default: synthetic pictures)",
    )
    add(
        "--compile",
        choices=["auto", "on", "off"],
        default="off",
        help="torch.compile, for bare and ours alike (default: off; auto lets both find out "
        "whether it is faster, which adds minutes to resnet18)",
    )
    add("--choice", default="", help="the bare loop's, not searched: bf16,channels_last,4")
    add("--isa", choices=list(ISA), default="", help="hold PyTorch to a lesser processor")
    add("--quick", action="store_true", help="only see that it works; README.md stays as it is")
    add("--out", type=Path, help="folder of results/ and README.md (default: this one)")
    found = parser.parse_args()
    unknown = set(found.sides.split(",")) - set(SIDES)
    if unknown:
        parser.error(f"no side {', '.join(sorted(unknown))}; known: {', '.join(SIDES)}")
    if found.rounds < 3 and not found.quick:
        parser.error("at least 3 rounds: a median of fewer says nothing")
    if not 1 <= found.threads <= machine.cores():
        parser.error(f"--threads is 1 to {machine.cores()}")
    return found


def main() -> None:
    """Measure, print, write."""
    given = _arguments()
    machine.grant(given.threads)
    failed = False
    with tempfile.TemporaryDirectory(prefix="neocog-rates-") as work:
        setting = Setting(
            sides=[side for side in SIDES if side in given.sides.split(",")],
            rounds=1 if given.quick else given.rounds,
            threads=given.threads,
            compile=given.compile,
            quick=given.quick,
            data=dict(map(_source, given.data)),
            synthetic=given.figure == "all",
            isa=given.isa,
            choice=_choice(given.choice, given.threads),
            home=given.out or (Path(work) / "page" if given.quick else pages.HOME),
            work=Path(work),
        )
        setting.home.mkdir(parents=True, exist_ok=True)
        for name in FIGURES if given.figure == "all" else [given.figure]:
            try:
                result = measure(FIGURES[name], setting)
            except Exception:  # noqa: BLE001 - one figure must not cost the others
                traceback.print_exc()
                failed = True
                continue
            kept = f"{name}-{setting.isa}" if setting.isa else name
            pages.save(setting.home, kept, result)
            lines = report(kept, result, setting.home)
            pages.section(setting.home, kept, lines, under=name)
            if given.quick:
                _say("quick: this shows that the sides work; the numbers mean nothing")
            print("\n".join(["", f"## {result['figure']['title']}", "", *lines]), flush=True)
            failed |= any("failed" in one for one in result["sides"].values())
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
