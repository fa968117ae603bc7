"""Knowledge carried over: what comes along, what stays as it is, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

import neocog
from neocog.bundle import Bundle
from neocog.cli import main
from neocog.config import AugmentRecipe, OptimRecipe, Recipe, ScheduleRecipe
from neocog.engine import features, loop, optim
from neocog.errors import ConfigError, RunError
from neocog.layers import Normalize, output_layer
from neocog.models import catalog, transfer
from neocog.records import FeatureInfo
from neocog.settings import from_dict
from neocog.verbs.transfer import origin


class Small(nn.Module):
    """Two stages and a head."""

    features = (
        FeatureInfo(channels=4, stride=1, name="one"),
        FeatureInfo(channels=6, stride=2, name="two"),
    )

    def __init__(self, channels: int = 3, outputs: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 4, 3)
        self.one = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(4, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(6, outputs)

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        one = self.one(self.stem(x))
        return one, self.two(one)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.last(self.drop(self.forward_features(x)[-1].mean((2, 3))))
        return answer


def drawn(network: nn.Module, seed: int) -> nn.Module:
    """With other numbers everywhere, statistics included."""
    torch.manual_seed(seed)
    for name, one in network.state_dict().items():
        if one.is_floating_point():
            one.copy_(torch.rand(one.shape) + 0.5 if "var" in name else torch.randn(one.shape))
    return network.eval()


def carry(network: nn.Module, old: nn.Module, **more: Any) -> transfer.Carried:
    found = transfer.carry(network, old.state_dict(), source="there", **more)
    network.load_state_dict(dict(found.tensors))
    return found


def test_rows_go_by_the_names_of_the_classes() -> None:
    """The new network answers for a class that both know what the old one did."""
    old, new = drawn(Small(outputs=3), 1), drawn(Small(outputs=4), 2)
    fresh = new.last.weight.detach().clone()
    found = carry(new, old, before=("cat", "dog", "fox"), after=("ape", "fox", "cat", "emu"))
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(new(x)[:, [1, 2]], old(x)[:, [2, 0]])
    assert torch.equal(new.last.weight[[0, 3]], fresh[[0, 3]])
    assert found.classes == ("fox", "cat")
    assert found.fresh == dict.fromkeys(("last.weight", "last.bias"), "2 of 4 classes are new")


def test_a_file_without_names_gives_no_rows_even_where_they_fit() -> None:
    old, new = drawn(Small(), 1), drawn(Small(), 2)
    before = new.last.weight.detach().clone()
    found = carry(new, old, after=("a", "b", "c"))
    assert torch.equal(new.last.weight, before)
    assert torch.equal(new.stem.weight, old.stem.weight)
    assert set(found.fresh) == {"last.weight", "last.bias"}


def test_grey_is_answered_as_the_same_picture_in_colour() -> None:
    old, new = drawn(Small(3), 1), drawn(Small(1), 2)
    names = ("a", "b", "c")
    found = carry(new, old, before=names, after=names)
    x = torch.randn(2, 1, 9, 9)
    torch.testing.assert_close(new(x), old(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)
    assert found.adapted == ("stem.weight: kernels for 3 channels became kernels for 1",)


@pytest.mark.parametrize("count", [2, 4, 7])
def test_more_channels_repeat_those_that_there_are(count: int) -> None:
    """Σ over c of w[c mod 3]·3/c, here for a picture that is 1 everywhere."""
    old, new = drawn(Small(3), 1), drawn(Small(count), 2)
    carry(new, old)
    kernel = old.stem.weight.detach().numpy()
    wanted = np.stack([kernel[:, c % 3] for c in range(count)], 1) * 3 / count
    np.testing.assert_allclose(new.stem.weight.detach().numpy(), wanted, rtol=1e-6)


def test_what_all_names_begin_with_is_left_out() -> None:
    old, new = drawn(Small(), 1), drawn(Small(), 2)
    tensors = {f"module.model.{name}": one for name, one in old.state_dict().items()}
    found = transfer.carry(new, tensors, source="there")
    assert torch.equal(found.tensors["two.0.weight"], old.state_dict()["two.0.weight"])
    assert found.left == ()


def test_weights_of_another_network_are_refused() -> None:
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(6, 3))
    with pytest.raises(ConfigError, match=r"holds 0% of this network: stem\.weight \(4×3×3×3\)"):
        transfer.carry(Small(), other.state_dict(), source="there")


class Gated(nn.Module):
    """Its last layer is registered first, and a gate of linear layers stands before it."""

    def __init__(self, outputs: int = 4) -> None:
        super().__init__()
        self.head = nn.Conv2d(8, outputs, 1)
        self.body = nn.Conv2d(3, 8, 3)
        self.gate = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        x = x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        answer: Tensor = self.head(x).mean((2, 3))
        return answer


def test_the_output_layer_is_the_one_that_ran_last() -> None:
    net = Gated()
    outputs = transfer.output_layers(net, (3, 9, 9))
    assert outputs == ("head",)
    assert transfer.stages(net, outputs)[-1].parameters[:2] == ("head.weight", "head.bias")
    frozen = transfer.freeze(net, "all", outputs=outputs)
    assert [name for name, one in net.named_parameters() if one.requires_grad] == [
        "head.weight",
        "head.bias",
    ]
    assert frozen.stages == ("all but head",)
    old, new = drawn(Gated(), 1), drawn(Gated(), 2)
    names = {"before": ("cat", "dog", "owl", "pig"), "after": ("owl", "ant", "cat", "bee")}
    found = carry(new, old, outputs=outputs, **names)
    assert found.classes == ("owl", "cat")
    assert torch.equal(new.head.weight[[0, 2]], old.head.weight[[2, 0]])


def test_auxiliary_heads_go_by_the_names_of_the_classes_too() -> None:
    args: dict[str, Any] = {"channels": 3, "size": (64, 64), "args": {"dropout": 0.0}}
    try:
        old = catalog.build("googlenet", outputs=4, **args)
    except ConfigError:
        args["args"] = {}
        old = catalog.build("googlenet", outputs=4, **args)
    new = catalog.build("googlenet", outputs=3, **args)
    outputs = transfer.output_layers(new, (3, 64, 64))
    assert outputs == ("fc", "aux1.fc2", "aux2.fc2")
    found = carry(new, old, before=("a", "b", "c", "d"), after=("d", "x", "a"), outputs=outputs)
    assert found.classes == ("d", "a")
    for name in ("fc", "aux1.fc2", "aux2.fc2"):
        assert torch.equal(
            new.get_parameter(f"{name}.weight")[[0, 2]], old.get_parameter(f"{name}.weight")[[3, 0]]
        )
        assert f"{name}.weight" in found.fresh
    last = transfer.stages(new, outputs)[-1].parameters
    assert {"fc.weight", "aux1.fc1.weight", "aux2.fc2.bias"} <= set(last)
    assert all(name.startswith(("fc.", "aux")) for name in last)


def test_bias_and_rows_come_together_or_not_at_all() -> None:
    old, new = drawn(Small(), 1), drawn(Small(), 2)
    tensors = dict(old.state_dict())
    tensors["last.weight"] = torch.zeros(3, 7)
    names = ("a", "b", "c")
    found = transfer.carry(new, tensors, source="there", before=names, after=names)
    assert found.classes == ()
    assert torch.equal(found.tensors["last.bias"], new.last.bias)
    assert set(found.fresh) == {"last.weight", "last.bias"}


def test_a_file_of_one_tensor_is_told_from_a_network() -> None:
    with pytest.raises(ConfigError, match="holds 0% of this network"):
        transfer.carry(Small(), {"0.weight": torch.zeros(2)}, source="there")


def test_muon_keeps_the_norms_that_were_carried() -> None:
    """A step at no rate changes nothing, while a fresh network's matrices are brought to √rows."""
    for own in (True, False):
        net = drawn(Small(), 1).train()
        before = net.two[0].weight.detach().clone()
        rule = optim.build(net, OptimRecipe(name="muon", normalize=True, lr=1e-12), own=own)
        net(torch.randn(4, 3, 9, 9)).square().sum().backward()
        rule.step()
        after = net.two[0].weight.detach()
        wanted = before if own else before * 6**0.5 / before.norm()
        torch.testing.assert_close(after, wanted, rtol=1e-4, atol=1e-6)


def test_stages_of_declared_levels_and_of_any_module() -> None:
    found = transfer.stages(Small())
    assert [one.name for one in found] == ["one", "two", "output"]
    assert found[0].parameters == ("stem.weight", "stem.bias", "one.0.weight", "one.0.bias")
    assert found[2].parameters == ("last.weight", "last.bias")
    deep = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(15)), nn.Flatten(), nn.Linear(3, 2))
    parts = transfer.stages(deep)
    assert [one.name for one in parts] == ["2", "5", "8", "11", "14", "output"]
    assert len(parts[0].parameters) == 6
    foreign = nn.Sequential(
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 2)
        )
    )
    assert [one.name for one in transfer.stages(foreign)] == ["0.0", "0.2", "output"]


@pytest.mark.parametrize("name", sorted(catalog.CATALOG))
def test_every_network_of_the_catalogue_has_stages(name: str) -> None:
    """All parameters once, in the order of the network, and the output layer in the last."""
    with torch.device("meta"):
        net = catalog.build(name, channels=3, size=(64, 64), outputs=5, args={})
    parts = transfer.stages(net)
    listed = [one for part in parts for one in part.parameters]
    assert sorted(listed) == sorted(one for one, _ in net.named_parameters())
    last = output_layer(net)
    assert net.get_submodule(last).weight.shape[0] == 5
    assert f"{last}.weight" in parts[-1].parameters
    assert len(parts) >= (1 if name == "mlp" else 2)


@pytest.mark.parametrize("how", [1, 2, "all"])
def test_what_is_frozen_stays_bit_for_bit_and_the_rest_learns(how: Any, tmp_path: Path) -> None:
    data = neocog.load("digits")
    net = drawn(Small(1, 10), 1).train()
    recipe = from_dict(Recipe, {"engine": {"epochs": 1}, "transfer": {"freeze": how}})
    run = neocog.fit(net, data, recipe, out=tmp_path / "run", quiet=True)
    after = run.bundle.weights
    kept = ["stem", "one", "two"][: {1: 2, 2: 3, "all": 3}[how]]
    for name, before in net.state_dict().items():
        same = torch.equal(before, after[name])
        assert same == (name.split(".")[0] in kept), name
    assert all(one.requires_grad for one in net.parameters())
    told = run.summary["transfer"]
    assert set(told["frozen"]) == {
        name for name, _ in net.named_parameters() if name.split(".")[0] in kept
    }


def test_norms_can_be_kept_alone(tmp_path: Path) -> None:
    net = drawn(Small(1, 10), 1).train()
    recipe = from_dict(Recipe, {"engine": {"epochs": 1}, "transfer": {"norms": "keep"}})
    run = neocog.fit(net, neocog.load("digits"), recipe, out=tmp_path / "run", quiet=True)
    for name, before in net.state_dict().items():
        norm = name.startswith(("one.0", "two.1"))
        assert torch.equal(before, run.bundle.weights[name]) == norm, name


def test_more_stages_than_there_are() -> None:
    with pytest.raises(ConfigError, match="has 2 before its last layers: one, two"):
        transfer.freeze(Small(), 3)


def test_rates_fall_towards_the_picture() -> None:
    """One step of plain gradient descent moves each stage by its own rate."""
    net = drawn(Small(), 1)
    factors = transfer.rates(net, 0.5)
    before = {name: one.detach().clone() for name, one in net.named_parameters()}
    rule = optim.build(net, OptimRecipe(name="sgd", lr=0.1), rates=factors)
    net(torch.randn(4, 3, 9, 9)).square().sum().backward()
    rule.set_lr(0.2)
    rule.step()
    assert rule.lr == 0.2
    for name, one in net.named_parameters():
        share = {"stem": 0.25, "one": 0.25, "two": 0.5, "last": 1.0}[name.split(".")[0]]
        assert one.grad is not None
        torch.testing.assert_close(one.detach(), before[name] - 0.2 * share * one.grad)
    assert transfer.rates(net, 1) == {}


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits 0 to 5 and 4 to 9 as two sets, and a network that learnt the first."""
    folder = tmp_path_factory.mktemp("halves")
    digits = load_digits()
    pictures = (digits.images * 15.9).astype(np.uint8)
    for name, classes in (("low", range(6)), ("high", range(4, 10))):
        mine = np.isin(digits.target, list(classes))
        labels = np.array([f"d{one}" for one in digits.target[mine]])
        np.savez(folder / f"{name}.npz", images=pictures[mine], labels=labels)
    recipe = from_dict(
        Recipe,
        {"model": "cnn", "model_args": {"width": 8}, "engine": {"epochs": 3, "precision": "fp32"}},
    )
    neocog.fit(None, folder / "low.npz", recipe, out=folder / "low", quiet=True)
    return folder


def train(folder: Path, out: Path, *more: str) -> int:
    args = ["train", str(folder / "high.npz"), "--out", str(out), *more]
    return main_code([*args, "--precision", "fp32", "--set", "engine.layout=contiguous"])


def main_code(args: list[str]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["neocog", *args])
        try:
            main()
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 1
    return 0


def test_the_command_follows_the_run(
    halves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(halves, tmp_path / "run", "--from", str(halves / "low"), "--epochs", "2") == 0
    said = capsys.readouterr().err
    assert "classes known by name: d4, d5" in said
    made, old = Bundle.load(tmp_path / "run" / "bundle"), Bundle.load(halves / "low" / "bundle")
    assert (made.model, made.input.mean) == (old.model, old.input.mean)
    told = json.loads((tmp_path / "run" / "evaluation.json").read_text())["transfer"]
    assert told["classes"] == ["d4", "d5"]
    assert "stages.0.0.weight" in told["carried"]
    start = Bundle.load(tmp_path / "run" / "start")
    assert torch.equal(start.weights["stages.0.0.weight"], old.weights["stages.0.0.weight"])
    assert torch.equal(start.weights["head.linear.bias"][:2], old.weights["head.linear.bias"][4:])


@pytest.mark.parametrize("freeze", ["1", "all"])
def test_a_run_goes_on_to_the_same_bytes_when_its_origin_is_gone(
    halves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, freeze: str
) -> None:
    shutil.copytree(halves / "low", tmp_path / "low")

    def cut(*args: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    more = ("--from", str(tmp_path / "low"), "--epochs", "2", "--freeze", freeze)
    assert train(halves, tmp_path / "whole", *more) == 0
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", cut)
        assert train(halves, tmp_path / "cut", *more) != 0
    shutil.rmtree(tmp_path / "low")
    run = neocog.resume(tmp_path / "cut")
    told = [
        json.loads((tmp_path / one / "evaluation.json").read_text()) for one in ("whole", "cut")
    ]
    assert told[0]["transfer"] == told[1]["transfer"]
    assert told[0]["transfer"]["classes"] == ["d4", "d5"]
    assert "What it began with" in (tmp_path / "cut" / "report.html").read_text()
    whole = Bundle.load(tmp_path / "whole" / "bundle")
    assert run.bundle.weights.keys() == whole.weights.keys()
    for name, one in whole.weights.items():
        assert torch.equal(one, run.bundle.weights[name]), name


def test_weights_from_a_file_need_the_name_of_their_network(halves: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(dict(Bundle.load(halves / "low" / "bundle").weights), file)
    recipe = {"transfer": {"source": str(file)}, "engine": {"epochs": 1}}
    with pytest.raises(ConfigError, match="does not say which network"):
        neocog.fit(None, halves / "high.npz", from_dict(Recipe, recipe), quiet=True)
    told = {**recipe, "model": "cnn", "model_args": {"width": 8}}
    run = neocog.fit(
        None, halves / "high.npz", from_dict(Recipe, told), out=tmp_path / "run", quiet=True
    )
    assert run.summary["transfer"]["classes"] == []
    assert "head.linear.weight" in run.summary["transfer"]["fresh"]


def test_a_pickle_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "weights.pt")
    with pytest.raises(RunError, match="pickle"):
        origin(str(tmp_path / "weights.pt"))
    with pytest.raises(RunError, match="nowhere"):
        origin(str(tmp_path / "nowhere"))


def test_published_weights_by_way_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the package is asked for, and what is made of its errors; nothing is fetched."""
    net = drawn(Small(), 1)

    def create_model(name: str, *, pretrained: bool) -> nn.Module:
        assert pretrained
        if name != "small":
            raise RuntimeError(f"unknown model {name}")
        return net

    stand_in = types.ModuleType("timm")
    stand_in.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    found = origin("timm:small")
    assert found is not None
    assert torch.equal(found.tensors["last.bias"], net.last.bias)
    with pytest.raises(ConfigError, match="no weights for smal: RuntimeError: unknown model smal"):
        origin("timm:smal")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match="needs the package timm"):
        origin("timm:small")


def test_a_foreign_network_of_a_run_is_not_built_unasked(halves: Path, tmp_path: Path) -> None:
    net = Small(1, 6)
    recipe = from_dict(Recipe, {"engine": {"epochs": 1}})
    neocog.fit(net, halves / "low.npz", recipe, out=tmp_path / "run", quiet=True)
    again = from_dict(Recipe, {"transfer": {"source": str(tmp_path / "run")}})
    with pytest.raises(ConfigError, match="not one of neocog's own"):
        neocog.fit(None, halves / "high.npz", again, quiet=True)


def quick(source: Path, **more: Any) -> Recipe:
    engine = {"epochs": 3, "precision": "fp32", "layout": "contiguous", "batch": 64}
    transfer = {"source": str(source), "freeze": "all", "decay": 1.0}
    optim = {"lr": 0.002}
    return from_dict(Recipe, {"engine": engine, "transfer": transfer, "optim": optim} | more)


def test_features_computed_once_teach_what_the_whole_network_teaches(
    halves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same steps as with the frozen network in every one of them; the rest is not touched."""
    recipe = quick(halves / "low")
    short = neocog.fit(None, halves / "high.npz", recipe, out=tmp_path / "short", quiet=True)
    monkeypatch.setattr(features, "suits", lambda job: False)
    whole = neocog.fit(None, halves / "high.npz", recipe, out=tmp_path / "whole", quiet=True)
    start = Bundle.load(tmp_path / "short" / "start").weights
    assert [one.step for one in short.events] == [one.step for one in whole.events]
    for name, one in whole.bundle.weights.items():
        torch.testing.assert_close(short.bundle.weights[name], one, rtol=1e-3, atol=1e-4)
        assert torch.equal(one, start[name]) != name.startswith("head.linear"), name
    assert short.scores["val"].metrics["accuracy"].value == pytest.approx(
        whole.scores["val"].metrics["accuracy"].value, abs=0.02
    )


def test_pictures_that_change_or_layers_that_learn_need_the_network() -> None:
    def job(**more: Any) -> Any:
        network = Small(1, 10)
        transfer.freeze(network, "all")
        given = {"augment": AugmentRecipe(flip=0.0, shift=0.0, rotate=0.0, scale=0.0), "ends": None}
        given |= more
        schedule = ScheduleRecipe(grow=given.get("grow", 1.0))
        recipe = types.SimpleNamespace(augment=given["augment"], schedule=schedule)
        return types.SimpleNamespace(network=network, recipe=recipe, ends=given["ends"])

    assert features.suits(job())
    for change in ({"flip": 0.5}, {"mixup": 0.2}, {"noise": 0.1}, {"alternate": True}):
        assert not features.suits(job(augment=AugmentRecipe(**change))), change
    assert not features.suits(job(grow=0.5))
    assert not features.suits(job(ends=1.0))
    learns = job()
    learns.network.stem.weight.requires_grad_(True)
    assert not features.suits(learns)


class Softened(nn.Module):
    """Its answer is not what its last layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(64, 8)
        self.last = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = torch.tanh(self.last(torch.relu(self.body(x.flatten(1)))))
        return answer


def test_a_network_that_ends_otherwise_is_trained_as_it_is(tmp_path: Path) -> None:
    recipe = from_dict(Recipe, {"engine": {"epochs": 1}, "transfer": {"freeze": "all"}})
    net = Softened()
    run = neocog.fit(net, neocog.load("digits"), recipe, out=tmp_path / "run", quiet=True)
    assert torch.equal(net.body.weight, run.bundle.weights["body.weight"])
    assert not torch.equal(net.last.weight, run.bundle.weights["last.weight"])


def test_a_run_of_the_last_layer_goes_on_from_its_checkpoint(
    halves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = quick(halves / "low")
    whole = neocog.fit(None, halves / "high.npz", recipe, out=tmp_path / "whole", quiet=True)

    def cut(event: Any, control: Any) -> None:
        if event.kind == "epoch" and event.values["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        neocog.fit(
            None, halves / "high.npz", recipe, out=tmp_path / "cut", callbacks=[cut], quiet=True
        )
    assert list((tmp_path / "cut" / "checkpoints").glob("step-*"))
    run = neocog.resume(tmp_path / "cut", anyway=True)
    for name, one in whole.bundle.weights.items():
        assert torch.equal(one, run.bundle.weights[name]), name


def test_the_last_layer_has_no_layout_and_is_not_compiled(halves: Path, tmp_path: Path) -> None:
    engine = {"epochs": 1, "precision": "bf16", "layout": "channels_last", "compile": "on"}
    recipe = quick(halves / "low", engine=engine)
    run = neocog.fit(None, halves / "high.npz", recipe, out=tmp_path / "run", quiet=True)
    told = run.summary["engine"]
    assert (told["precision"], told["layout"], told["compile"]) == ("fp32", "contiguous", False)


def test_a_line_is_followed_like_any_network_of_ours(halves: Path, tmp_path: Path) -> None:
    line = "conv 8 3 pad=same; bn; relu; pool 2; gap; linear"
    first = from_dict(Recipe, {"model": line, "engine": {"epochs": 1}})
    neocog.fit(None, halves / "low.npz", first, out=tmp_path / "first", quiet=True)
    again = from_dict(
        Recipe, {"transfer": {"source": str(tmp_path / "first")}, "engine": {"epochs": 1}}
    )
    run = neocog.fit(None, halves / "high.npz", again, out=tmp_path / "run", quiet=True)
    assert run.bundle.model.name == line
    assert run.summary["transfer"]["classes"] == ["d4", "d5"]
    assert Path(run.recipe.transfer.source).is_absolute()


def test_the_arguments_of_the_run_come_along_with_its_name(halves: Path, tmp_path: Path) -> None:
    recipe = from_dict(
        Recipe,
        {"model": "cnn", "engine": {"epochs": 1}, "transfer": {"source": str(halves / "low")}},
    )
    run = neocog.fit(None, halves / "high.npz", recipe, out=tmp_path / "run", quiet=True)
    assert run.bundle.model.args["width"] == 8
    assert run.recipe.model_args["init"] == "he"


def test_the_rate_of_the_last_layer_fits_its_features(halves: Path, tmp_path: Path) -> None:
    """Half a unit of an answer for a step at the peak, whatever the size of the features."""
    recipe = quick(halves / "low", optim={})
    run = neocog.fit(None, halves / "high.npz", recipe, out=tmp_path / "run", quiet=True)
    start = Bundle.load(tmp_path / "run" / "start")
    data = run.data()
    seen: list[Tensor] = []
    net = start.network()
    layer = net.get_submodule("head.linear")
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images = data.images.gather(data.splits["train"], data.size)
    with torch.no_grad():
        net(Normalize(start.input.mean, start.input.std)(images))
    wanted = 0.5 / float(seen[0].abs().sum(1).mean())
    rates = [one.values["lr"] for one in run.events if one.kind == "step"]
    assert max(rates) == pytest.approx(wanted, rel=0.02)


def test_speednet_ends_with_its_last_layer() -> None:
    net = catalog.build("speednet", channels=3, size=(32, 32), outputs=5, args={"width": 16}).eval()
    given: list[Tensor] = []
    net.fc.register_forward_pre_hook(lambda _, one: given.append(one[0]))
    with torch.no_grad():
        answer = net(torch.randn(2, 3, 32, 32))
    assert torch.equal(net.fc(given[0]), answer)


def test_the_story_of_an_attempt_that_was_given_up_is_not_told_again(
    halves: Path, tmp_path: Path
) -> None:
    """Killed before its manifest: what lies there is of no run."""
    start = tmp_path / "run" / "start"
    start.mkdir(parents=True)
    (start / "transfer.json").write_text('{"source": "somewhere else"}')
    recipe = from_dict(
        Recipe, {"transfer": {"source": str(halves / "low")}, "engine": {"epochs": 1}}
    )
    run = neocog.fit(None, halves / "high.npz", recipe, out=tmp_path / "run", quiet=True)
    assert run.summary["transfer"]["source"] == str(halves / "low")
    (tmp_path / "plain" / "start").mkdir(parents=True)
    (tmp_path / "plain" / "start" / "transfer.json").write_text('{"source": "somewhere else"}')
    plain = from_dict(Recipe, {"model": "mlp", "engine": {"epochs": 1}})
    run = neocog.fit(None, halves / "high.npz", plain, out=tmp_path / "plain", quiet=True)
    assert run.summary["transfer"] is None
