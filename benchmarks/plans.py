"""How far the plan's step time and peak memory are from real steps: 30 model × batch pairs.

    python benchmarks/plans.py [--pairs N]

Of each pair, the time that the profile of this machine predicts and the time that the replay of
single operations predicts against real training steps (forward, loss, backward, SGD with momentum),
half of them before and half after the replay; and the predicted peak of memory against the
allocations that PyTorch's profiler records. Bars: step time within 20 % on the median, inside the
stated interval nine times of ten; peak within 10 %.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neocog import host
from neocog.waiting import wait_patiently

wait_patiently()  # as the command line does, before torch is imported

import machine  # noqa: E402
import pages  # noqa: E402
import torch  # noqa: E402

from neocog.analysis import clock  # noqa: E402
from neocog.analysis.profile import Profile, estimate, measure_profile  # noqa: E402
from neocog.analysis.step import measure_step, usual_loss, usual_optimizer  # noqa: E402
from neocog.models.catalog import build  # noqa: E402

if TYPE_CHECKING:
    from neocog.analysis.profile import Estimate
    from neocog.analysis.step import Step

__all__ = ["main"]

PAIRS = (
    ("cnn", 128, 32, "fp32"),
    ("resnet18", 8, 32, "fp32"),
    ("mobilenet_v2", 32, 32, "bf16"),
    ("speednet", 128, 32, "bf16"),
    ("densenet121", 8, 32, "fp32"),
    ("convnext_tiny", 8, 64, "bf16"),
    ("lenet5", 128, 32, "fp32"),
    ("efficientnet_b0", 8, 64, "fp32"),
    ("googlenet", 32, 64, "bf16"),
    ("vgg11", 32, 32, "fp32"),
    ("cnn", 8, 32, "bf16"),
    ("resnet18", 32, 32, "bf16"),
    ("mobilenet_v2", 8, 32, "fp32"),
    ("speednet", 32, 32, "fp32"),
    ("densenet121", 8, 64, "bf16"),
    ("convnext_tiny", 8, 32, "fp32"),
    ("lenet5", 32, 32, "bf16"),
    ("efficientnet_b0", 32, 32, "bf16"),
    ("googlenet", 8, 64, "fp32"),
    ("vgg11", 8, 64, "bf16"),
    ("cnn", 32, 64, "fp32"),
    ("resnet18", 8, 64, "fp32"),
    ("mobilenet_v2", 8, 64, "fp32"),
    ("speednet", 8, 64, "bf16"),
    ("densenet121", 32, 32, "bf16"),
    ("mlp", 128, 32, "fp32"),
    ("resnet18", 128, 32, "bf16"),
    ("efficientnet_b0", 8, 32, "bf16"),
    ("cnn", 128, 32, "bf16"),
    ("mlp", 32, 64, "bf16"),
)
"""Model, batch, side of the pictures, precision; bf16 lies channels last. The first pairs of a
short run hold as many kinds as they can."""
TIME_BAR, INSIDE_BAR, MEMORY_BAR = 0.2, 0.9, 0.1
PROCESSOR = torch.device("cpu")


class Real:
    """A network that is trained for real on one batch."""

    def __init__(self, model: str, batch: int, side: int, precision: str) -> None:
        torch.manual_seed(0)
        self.net = build(model, channels=3, size=(side, side), outputs=10, args={}).train()
        self.images = torch.randn(batch, 3, side, side)
        self.lower = precision == "bf16"
        if self.lower:
            self.net = self.net.to(memory_format=torch.channels_last)
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        self.rule = usual_optimizer(self.net.parameters())

    def step(self) -> tuple[float, float]:
        """Train once; seconds of all and of the forward pass with the loss."""
        began = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.lower):
            answer = self.net(self.images)
        loss = usual_loss(answer)
        del answer
        forward = time.perf_counter() - began
        loss.backward()
        del loss
        self.rule.step()
        self.rule.zero_grad(set_to_none=True)
        return time.perf_counter() - began, forward

    def steps(self, budget: float) -> list[tuple[float, float]]:
        """At least three steps, more while there is time, at most 20."""
        with host.memory_kept():
            first = self.step()[0]
            return [self.step() for _ in range(min(20, max(3, int(budget / first))))]


def peak_of(pair: tuple[str, int, int, str]) -> int:
    """Most bytes that tensors held in two steps, the network and the batch included."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        real = Real(*pair)
        real.step()
        real.step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    found = [one for one in events if one["name"] == "[memory]"]
    held = most = 0
    for one in sorted(found, key=lambda one: one["ts"]):
        if one["args"]["Device Type"] == 0:
            held += one["args"]["Bytes"]
            most = max(most, held)
    return most


def compare(pair: tuple[str, int, int, str], profile: Profile, budget: float) -> dict[str, Any]:
    """Predictions and truth of one pair."""
    model, batch, side, precision = pair
    net = build(model, channels=3, size=(side, side), outputs=10, args={})
    last = precision == "bf16"
    plan = measure_step(net, (batch, 3, side, side), precision=precision, channels_last=last)
    real = Real(*pair)
    times = real.steps(budget)
    began = time.perf_counter()
    replayed = clock.replay([work for _, work in plan.work], PROCESSOR, footprint=plan.peak)
    spent = time.perf_counter() - began
    times += real.steps(budget)
    del real
    step = statistics.median(one for one, _ in times)
    seconds = {
        "real": step,
        "low": min(one for one, _ in times),
        "high": max(one for one, _ in times),
        "forward": statistics.median(one for _, one in times),
    }
    peak = peak_of(pair)
    return {
        "model": model,
        "batch": batch,
        "side": side,
        "precision": precision,
        "seconds": seconds,
        "profile": _judged(plan, profile, {}, step),
        "replay": _judged(plan, profile, replayed.seconds, step),
        "replay_took": spent,
        "not_replayed": dict(replayed.failed),
        "peak": {"real": peak, "predicted": plan.peak, "error": plan.peak / peak - 1},
    }


def _judged(
    plan: Step, profile: Profile, measured: dict[Any, float], real: float
) -> dict[str, float | bool]:
    found: Estimate = estimate(plan, profile, measured)
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "forward": found.forward,
        "estimated": found.estimated,
        "error": found.value / real - 1,
        "inside": found.low <= real <= found.high,
    }


def summary(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Median errors and shares inside."""
    found: dict[str, Any] = {}
    for way in ("profile", "replay"):
        errors = sorted(abs(one[way]["error"]) for one in pairs)
        found[way] = {
            "median_error": statistics.median(errors),
            "bias": statistics.median(one[way]["error"] for one in pairs),
            "worst_error": errors[-1],
            "inside": statistics.mean(one[way]["inside"] for one in pairs),
        }
    peaks = [abs(one["peak"]["error"]) for one in pairs]
    found["peak"] = {
        "median_error": statistics.median(peaks),
        "worst_error": max(peaks),
        "within": statistics.mean(one <= MEMORY_BAR for one in peaks),
    }
    return found


def rows(pairs: list[dict[str, Any]]) -> list[str]:
    """The table, in Markdown."""
    cells = []
    for one in pairs:
        times = [f"{1000 * one['seconds']['real']:.1f}"]
        for way in ("profile", "replay"):
            guess = one[way]
            mark = "" if guess["inside"] else " **out**"
            words = [f"{1000 * guess[key]:.1f}" for key in ("value", "low", "high")]
            times += [
                f"{words[0]} ({words[1]} to {words[2]}){mark}",
                f"{100 * guess['error']:+.0f} %",
            ]
        peak = one["peak"]
        cells.append(
            [
                f"{one['model']} {one['side']}² {one['precision']} × {one['batch']}",
                *times,
                f"{peak['real'] / 1e6:.1f}",
                f"{peak['predicted'] / 1e6:.1f}",
                f"{100 * peak['error']:+.1f} %",
            ]
        )
    head = ["pair", "step, ms", "profile, ms", "off", "replay, ms", "off"]
    return pages.table([*head, "peak, MB", "predicted", "off"], cells)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=len(PAIRS), help="the first N; writes nothing")
    parser.add_argument("--threads", type=int, help="fewer threads than processors")
    parser.add_argument("--seconds", type=float, default=0.5, help="of real steps, twice a pair")
    parser.add_argument("--out", type=Path, help="folder of results/")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    about, watch, began = machine.describe(), host.Watch(), time.monotonic()
    profiles, took = {}, {}
    for precision in ("fp32", "bf16"):
        start = time.perf_counter()
        last = precision == "bf16"
        profiles[precision] = measure_profile(PROCESSOR, precision=precision, channels_last=last)
        took[precision] = time.perf_counter() - start
    pairs = []
    for pair in PAIRS[: given.pairs]:
        print(f"{pair} after {time.monotonic() - began:.0f} s", file=sys.stderr)
        pairs.append(compare(pair, profiles[pair[3]], given.seconds))
    found = summary(pairs)
    result = {
        "machine": {**about, "busy_with_others": watch.others()},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "minutes": round((time.monotonic() - began) / 60, 2),
        "profile_seconds": took,
        "profiles": {name: one.to_dict() for name, one in profiles.items()},
        "summary": found,
        "pairs": pairs,
    }
    if given.pairs >= len(PAIRS) or given.out:
        pages.save(given.out or pages.HOME, "plans", result)
    lines = rows(pairs)
    for way in ("profile", "replay"):
        one = found[way]
        near = "met" if one["median_error"] <= TIME_BAR else "**missed**"
        often = "met" if one["inside"] >= INSIDE_BAR else "**missed**"
        lines += [
            "",
            f"Step time by {way}: off by {100 * one['median_error']:.0f} % on the median (bar:"
            f" ≤ {100 * TIME_BAR:.0f} %, {near}; {100 * one['bias']:+.0f} % with its sign),"
            f" {100 * one['worst_error']:.0f} % at worst; inside its interval"
            f" {100 * one['inside']:.0f} % of the time (bar: ≥ {100 * INSIDE_BAR:.0f} %, {often}).",
        ]
    one = found["peak"]
    lines += [
        "",
        f"Peak memory: off by {100 * one['median_error']:.1f} % on the median,"
        f" {100 * one['worst_error']:.1f} % at worst; {100 * one['within']:.0f} % of the pairs"
        f" within {100 * MEMORY_BAR:.0f} %.",
        "",
        f"{len(pairs)} pairs in {result['minutes']} minutes; others kept"
        f" {result['machine']['busy_with_others']} cores busy. {machine.words(about)}.",
    ]
    if given.pairs >= len(PAIRS) or given.out:
        pages.section(given.out or pages.HOME, "plans", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
