"""Plans: what they say adds up, agrees with torch's own counts, and comes out the same for people,
programs and notebooks."""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from defusedxml.ElementTree import fromstring
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import neocog
from neocog.cli import main
from neocog.config import EngineRecipe
from neocog.errors import ConfigError
from neocog.host import memory_held
from neocog.machine import free_bytes
from neocog.models import catalog
from neocog.planning import How, Range
from neocog.planning import plan as plan_of
from neocog.planning.make import costs, describe
from neocog.planning.text import amount, lines
from neocog.verbs.plan import plan, size_of

GOLDEN = Path(__file__).parent / "golden"
NETS = {
    "lenet5": (1, 32, 32),
    "resnet18": (3, 32, 32),
    "vgg11": (3, 224, 224),
    "mobilenet_v2": (3, 224, 224),
    "googlenet": (3, 224, 224),
}


def built(name: str, sample: tuple[int, ...], outputs: int = 10) -> nn.Module:
    with torch.device("meta"):
        return catalog.build(name, channels=sample[0], size=sample[1:], outputs=outputs, args={})


@pytest.mark.parametrize("name", NETS)
def test_the_table_is_as_it_was_and_its_columns_add_up(name: str) -> None:
    sample = NETS[name]
    found = plan(name, sample, batch=4, time=False)
    assert found.costs is not None
    # What is free differs from machine to machine.
    fixed = dataclasses.replace(found.costs, free=None, largest_batch=None)
    shown = "\n".join(lines(found.network, fixed)) + "\n"
    path = GOLDEN / f"plan-{name}.txt"
    assert shown == path.read_text(encoding="utf-8"), f"look at it, then write it to {path}"

    network = built(name, sample, 10 if max(sample) <= 64 else 1000)
    layers = found.json["layers"]
    # GoogLeNet's auxiliary heads do not run in use; their parameters are in no line.
    learnt = sum(one.numel() for one in network.parameters())
    idle = sum(one.numel() for key, one in network.named_parameters() if key.startswith("aux"))
    assert found.json["parameters"] == learnt
    assert sum(one["parameters"] for one in layers) == learnt - idle
    assert found.json["idle_parameters"] == idle
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.empty(1, *sample, device="meta"))
    assert 2 * sum(one["macs"] for one in layers) == counter.get_total_flops()
    assert sum(one["activation_bytes"] for one in layers) == found.costs.activations


def test_a_step_has_the_work_that_torch_counts() -> None:
    network = built("resnet18", (3, 32, 32))
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(4, 3, 32, 32, device="meta")).sum().backward()
    found = costs(
        network, (3, 32, 32), describe(network, (3, 32, 32)).layers, How(batch=4), time=False
    )
    assert 2 * found.macs == counter.get_total_flops()
    forward = 4 * plan_of(network, (3, 32, 32), time=False).macs
    assert sum(found.macs_back) + forward == found.macs


def test_memory_of_the_parts() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 10))
    count = 300 * 200 + 200 + 200 * 10 + 10
    for rule, copies in (("sgd", 0), ("momentum", 1), ("adamw", 2)):
        found = plan_of(network, (300,), how=How(batch=8, optimizer=rule), time=False).costs
        assert found is not None
        assert found.weights == found.gradients == 4 * count
        # Adam also counts its steps, a number for each tensor.
        assert found.state == 4 * count * copies + 16 * (rule == "adamw")
        assert found.peak.low < found.peak.value < found.peak.high
        everything = found.weights + found.gradients + found.state
        assert found.peak.value >= everything


def test_the_largest_batch_fits_and_the_next_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    network = built("cnn", (3, 32, 32))
    monkeypatch.setattr("neocog.machine.free_bytes", lambda device: 200 << 20)

    def peak(batch: int) -> float:
        found = plan_of(network, (3, 32, 32), how=How(batch=batch), time=False).costs
        assert found is not None
        return found.peak.high

    found = plan_of(network, (3, 32, 32), how=How(batch=16), time=False).costs
    assert found is not None
    assert found.largest_batch is not None
    room = 0.9 * (200 << 20)
    assert peak(found.largest_batch) <= room * 1.001
    assert peak(found.largest_batch + 2) > room


def test_any_module_and_any_number_of_axes() -> None:
    sound = nn.Sequential(nn.Conv1d(2, 4, 5), nn.ReLU(), nn.Conv1d(4, 4, 3, stride=2))
    assert neocog.plan(sound, (2, 100), time=False).receptive_field == (7,)
    volume = nn.Sequential(nn.Conv3d(1, 2, 3), nn.MaxPool3d(2))
    found = neocog.plan(volume, (1, 8, 8, 8), time=False)
    assert found.receptive_field == (4, 4, 4)
    assert found.layers[-1].shape == (1, 2, 3, 3, 3)
    words = nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Linear(80, 3))
    tokens = torch.zeros(10, dtype=torch.long)
    assert plan_of(words, tokens, time=False).parameters == 50 * 8 + 80 * 3 + 3


class Reader(nn.Module):
    """L×8 → 10."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.LSTM(8, 16, batch_first=True)
        self.out = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.out(self.words(x)[0][:, -1])
        return answer


def test_what_cannot_be_foreseen_has_wide_ranges_and_is_named() -> None:
    found = plan_of(Reader(), (12, 8), how=How(batch=8), time=False)
    costs = found.costs
    assert costs is not None
    assert costs.rough == ("LSTM",)
    assert found.json["training"]["rough"] == ["LSTM"]
    assert str(found).splitlines()[-1].endswith(": LSTM")
    assert "everything seen from words on" in str(found)
    plain = plan_of(nn.Sequential(nn.Flatten(), nn.Linear(96, 10)), (12, 8), time=False).costs
    assert plain is not None
    assert plain.rough == ()

    def width(one: Range) -> float:
        return one.high / one.low

    assert width(costs.peak) == pytest.approx(4 * width(plain.peak))
    assert width(costs.use_peak) == pytest.approx(4 * width(plain.use_peak))


def test_a_network_that_cannot_be_trained_still_has_a_table() -> None:
    found = plan_of(nn.MaxPool2d(2), (3, 8, 8), time=False)
    assert found.costs is None
    assert "can be learnt" in str(found)
    assert found.json["training"] is None


def test_for_notebooks_and_walls() -> None:
    found = neocog.plan("lenet5", time=False)
    drawing = fromstring(found.drawing())
    assert drawing.tag.endswith("svg")
    page = found._repr_html_()
    assert "<svg" in page
    assert "conv3" in page
    assert "61,706" in page


def test_texts_of_foreign_modules_cannot_break_the_page() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("<script>\x1b[31m", nn.Linear(4, 2))

        def forward(self, x: torch.Tensor) -> Any:
            return getattr(self, "<script>\x1b[31m")(x)

    found = plan_of(Odd(), (4,), time=False)
    assert "\x1b" not in str(found)
    assert "<script>" not in found._repr_html_()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    recipe = neocog.Recipe(engine=EngineRecipe(epochs=1, precision="fp32"))
    neocog.fit("cnn", "digits", recipe, out=out, quiet=True)
    return out


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["neocog", *(str(one) for one in argv)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "plan", "resnet18", "--no-time", "--json", "--batch", 2)
    values = json.loads(out)
    assert code == 0
    assert values["parameters"] == 11_689_512
    assert values["macs"] == 1_814_073_344
    assert values["receptive_field"] == [435, 435]
    assert values["unknown"] == []
    assert {"name", "op", "output", "parameters", "macs", "receptive_field", "jump"} <= set(
        values["layers"][0]
    )
    assert values["training"]["batch"] == 2
    assert set(values["training"]["peak_bytes"]) == {"value", "low", "high"}
    svg = tmp_path / "net.svg"
    code, out, _ = run(capsys, "plan", "lenet5", "--layer", "conv3", "--svg", svg)
    assert code == 0
    assert "2,416" in out
    assert fromstring(svg.read_text(encoding="utf-8")).tag.endswith("svg")
    code, _, err = run(capsys, "plan", "lenet5", "--layer", "conv4")
    assert code == 2
    assert "conv3" in err
    code, _, err = run(capsys, "plan", "resnet19")
    assert code == 2
    assert "resnet18" in err
    code, _, err = run(capsys, "plan", "resnet18", "--input", "224")
    assert code == 2
    assert "CxHxW" in err
    code, _, err = run(capsys, "plan", "cnn", "--no-time", "--set", "optim.nam=sgd")
    assert code == 2
    assert "name" in err


def test_the_effective_field_as_a_picture(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, trained: Path
) -> None:
    picture = tmp_path / "field.png"
    code, _, _ = run(
        capsys, "plan", "cnn", "--layer", "body.0.0.conv1", "--no-time", "--effective", picture
    )
    assert code == 2  # no such layer, and nothing is written
    assert not picture.exists()
    code, _, _ = run(capsys, "plan", trained, "--no-time", "--effective", picture)
    assert code == 0
    with Image.open(picture) as image:
        assert min(image.size) > 300
    code, _, err = run(capsys, "plan", "cnn", "--no-time", "--effective", tmp_path / "field.txt")
    assert code == 2
    assert ".svg" in err


def test_memory_that_was_held_is_noticed() -> None:
    # Not from the heap: what other tests have freed there is still held, and would be taken first.
    with memory_held() as found, mmap.mmap(-1, 40 << 20) as block:
        np.frombuffer(block, np.uint8)[::512] = 1
    if not found:
        pytest.skip("this system does not say")
    assert 39 << 20 < found[0] < 120 << 20


def test_free_memory_is_less_than_there_is() -> None:
    found = free_bytes(torch.device("cpu"))
    if found is None:
        pytest.skip("this system does not say")
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < found <= pages


def test_a_foreign_network_by_name(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Choosy(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, 4, 3)\n"
        "    def forward(self, x):\n"
        "        y = self.conv(x)\n"
        "        return y if y.sum() > 0 else -y\n"
        "def good():\n"
        "    return nn.Conv2d(3, 4, 3)\n"
    )
    said = subprocess.run(
        [sys.executable, "-m", "neocog", "plan", "mine:good", "--input", "3x8x8", "--no-time"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "112 parameters" in said.stdout
    said = subprocess.run(
        [sys.executable, "-m", "neocog", "plan", "mine:Choosy", "--input", "3x8x8"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 1
    assert "mine.py:8" in said.stderr


def test_of_a_run(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "plan", trained, "--json")
    values = json.loads(out)
    assert code == 0
    assert values["input"] == [1, 8, 8]
    manifest = json.loads((trained / "manifest.json").read_text())
    assert values["training"]["precision"] == manifest["config"]["engine"]["precision"]
    assert values["training"]["optimizer"] == "adamw"
    steps = -(-manifest["data"]["splits"]["train"] // values["training"]["batch"])
    assert values["training"]["epoch_seconds"]["value"] == pytest.approx(
        steps * values["training"]["step_seconds"]["value"]
    )


def test_training_says_what_it_will_take_and_what_it_took(trained: Path) -> None:
    told = json.loads((trained / "evaluation.json").read_text())["plan"]
    assert told["peak_bytes"]["low"] < told["peak_bytes"]["value"] < told["peak_bytes"]["high"]
    assert told["measured"]["epoch_seconds"] > 0


def test_numbers_for_people() -> None:
    assert [amount(one) for one in (0, 9999, 10_000, 1_234_567, 8.5e9, 1.6e13)] == [
        *("0", "9,999", "10.00 k", "1.235 M", "8.500 G", "16.00 T")
    ]
    half = Range(value=2.0, low=1.0, high=4.0).times(0.5)
    assert half == Range(value=1.0, low=0.5, high=2.0)
    assert half.plus(1.0).high == 3.0


@pytest.mark.parametrize(
    "text", ["", "3", "axbxc", "3x-1x4", "3x0x4", "3x99999999999x4", "1x2x3x4x5", "٣x٣"]
)
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError):
        size_of(text)


def test_a_disturbed_measurement_of_the_machine_is_made_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from neocog import host
    from neocog.planning import times

    monkeypatch.setenv("NEOCOG_CACHE", str(tmp_path))
    made = dataclasses.replace(times.machine_profile(How()), call=1.0)
    calls: list[float] = []

    def measure(device: torch.device, **how: object) -> object:
        calls.append(time.time())
        return made

    class Disturbed:
        def others(self) -> float:
            return busy

    monkeypatch.setattr(times, "measure_profile", measure)
    monkeypatch.setattr(times, "Watch", Disturbed)
    for one in tmp_path.glob("profiles/*"):
        one.unlink()
    busy = 0.9
    assert times.machine_profile(How()) == made
    assert times.machine_profile(How()) == made
    assert len(calls) == 1
    found = plan_of(nn.Linear(4, 2), (4,)).costs
    assert found is not None
    assert found.busy == 0.9
    later = time.time() + host.AGAIN
    monkeypatch.setattr(times.time, "time", lambda: later)
    busy = 0.0
    assert times.machine_profile(How()) == made
    monkeypatch.setattr(times.time, "time", lambda: later + 10 * host.AGAIN)
    assert times.machine_profile(How()) == made
    assert len(calls) == 2
