"""The catalogue: names, arguments, and factories that are not ours."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from neocog.errors import ConfigError
from neocog.models.catalog import CATALOG, build, describe, is_foreign, names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def make(name: str, **args: object) -> nn.Module:
    return build(name, channels=1, size=(28, 28), outputs=4, args=args)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CATALOG)
def test_every_entry_resolves_to_a_factory_of_the_contract(name: str) -> None:
    entry = CATALOG[name]
    module, _, attribute = entry.factory.partition(":")
    factory = getattr(importlib.import_module(f"neocog.{module}"), attribute)
    parameters = inspect.signature(factory).parameters
    assert list(parameters)[:3] == ["channels", "size", "outputs"]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())
    defaults = {key: p.default for key, p in list(parameters.items())[3:]}
    assert json.loads(json.dumps(defaults)) == defaults  # so a bundle can write them down
    assert attribute in importlib.import_module(f"neocog.{module}").__all__
    for key in parameters:
        assert f"    {key}: " in factory.__doc__, f"{key} is not documented"
    assert entry.summary
    assert entry.paper
    with torch.device("meta"):
        assert isinstance(make(name, **defaults), nn.Module)


def test_names_are_found_by_part_and_by_glob() -> None:
    assert names() == sorted(CATALOG)
    assert {"lenet5", "resnet18", "speednet"} <= set(names("NET"))
    assert all("net" in name for name in names("NET"))
    assert names("*net*18") == ["resnet18"]
    assert names("[cm][nl]*") == ["cnn", "mlp"]
    assert names("zebra") == []


def test_listing_loads_no_torch() -> None:
    code = (
        "import sys; from neocog.models import catalog; catalog.names('net'); "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_describe_names_what_each_argument_takes() -> None:
    found = {keyword.name: keyword for keyword in describe("cnn")}
    assert found["width"].kind == "int"
    assert found["depth"].kind == "int|none"
    assert found["depth"].default is None
    assert found["dropout"].kind == "float"
    assert found["pool"].kind == "max|avg"
    assert not {"channels", "size", "outputs"} & set(found)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("resnet81", {}, "did you mean 'resnet18'"),
        ("zebra", {}, "known: .*cnn, .*lenet5, .*mlp, .*resnet18"),
        ("cnn", {"widht": 8}, "did you mean 'width'"),
        ("cnn", {"width": "8"}, "model_args.width takes a whole number, got '8'"),
        ("cnn", {"width": 8.5}, "model_args.width takes a whole number"),
        ("cnn", {"width": True}, "model_args.width takes a whole number"),
        ("cnn", {"dropout": "much"}, "model_args.dropout takes a number"),
        ("cnn", {"pool": "mux"}, "did you mean 'max'"),
        ("resnet18", {"zero_init": 1}, "model_args.zero_init takes true or false"),
        ("cnn", {"outputs": 5}, "decided by the data"),
        ("cnn", {"size": 5}, "decided by the data"),
    ],
)
def test_wrong_names_and_arguments(name: str, args: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(name, **args)


def test_arguments_arrive() -> None:
    assert make("cnn", width=4, depth=None, dropout=0).features[0].channels == 4
    assert len(make("cnn", width=4, depth=1).features) == 1


@pytest.mark.parametrize("given", [{"channels": 0}, {"outputs": 0}, {"size": (0, 28)}])
@pytest.mark.parametrize("name", CATALOG)
def test_empty_shapes_are_refused(name: str, given: dict) -> None:
    with pytest.raises(ConfigError):
        build(name, **{"channels": 1, "size": (28, 28), "outputs": 4, "args": {}} | given)


# Factories that are not ours --------------------------------------------------------------------

FOREIGN = """
from __future__ import annotations
from typing import TYPE_CHECKING, Literal
from torch import nn
if TYPE_CHECKING:
    from nowhere import Sequence

def three(channels, size, outputs, width: int = 8):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size[0] * size[1], width),
                         nn.ReLU(), nn.Linear(width, outputs))

def num_classes(num_classes, scale=1.0):
    return nn.LazyLinear(num_classes)

def unknown_types(outputs: int, parts: Sequence[int] = (), mode: Literal["a", "b"] = "a"):
    return nn.LazyLinear(outputs)

def takes_all(outputs, **rest):
    net = nn.LazyLinear(outputs)
    net.rest = rest
    return net

def no_network(outputs):
    return [outputs]

def fails():
    raise RuntimeError("mine")

def later(outputs):
    import mynets_deep
    return mynets_deep.Net(1, outputs)

class Net(nn.Linear):
    def __init__(self, channels: int, outputs: int, bias: bool = True) -> None:
        super().__init__(channels, outputs, bias)

made = nn.Linear(1, 1)
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., nn.Module]:
    """A module in the current directory, which is not on the path otherwise."""
    (tmp_path / "mynets.py").write_text(FOREIGN)
    (tmp_path / "mynets_deep.py").write_text(FOREIGN)
    (tmp_path / "broken.py").write_text("import not_installed_anywhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    before = list(sys.path)
    yield make
    assert sys.path == before  # put back, whatever happened
    for name in ("mynets", "mynets_deep", "broken"):
        sys.modules.pop(name, None)


def test_a_foreign_factory_gets_what_it_asks_for(foreign: Callable[..., nn.Module]) -> None:
    assert is_foreign("mynets:three")
    net = foreign("mynets:three", width=5)
    assert [m.out_features for m in net if isinstance(m, nn.Linear)] == [5, 4]
    assert net[1].in_features == 28 * 28
    assert foreign("mynets:num_classes", num_classes=9).out_features == 9
    assert foreign("mynets:unknown_types", mode="b").out_features == 4
    assert foreign("mynets:takes_all", anything=3).rest == {"anything": 3}
    assert foreign("mynets:later").in_features == 1
    assert foreign("mynets:Net", bias=False).bias is None
    assert foreign("torch.nn:LazyLinear", out_features=3).out_features == 3


def test_the_keywords_of_a_foreign_factory(foreign: Callable[..., nn.Module]) -> None:
    assert [(k.name, k.kind, k.default) for k in describe("mynets:three")] == [("width", "int", 8)]
    (needed, scale) = describe("mynets:num_classes")
    assert needed.default is inspect.Parameter.empty
    assert scale.default == 1.0


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("mynets:three", {"widht": 5}, "did you mean 'width'"),
        ("mynets:three", {"width": "x"}, "takes a whole number"),
        ("mynets:num_classes", {}, "needs 'num_classes'"),
        ("mynets:fails", {"a": 1}, "takes no arguments"),
        ("mynets:no_network", {}, "made a list, expected a torch.nn.Module"),
        ("mynets:thre", {}, "did you mean 'three'"),
        ("mynets:made", {}, "is a Linear, expected a function or class"),
        ("mynets_missing:three", {}, "no module 'mynets_missing'"),
        ("mynets.py:three", {}, "write mynets:three"),
        ("./mynets:three", {}, "expected package.module:factory"),
        ("broken:three", {}, "no module 'not_installed_anywhere'"),
        ("mynets:", {}, "expected package.module:factory"),
        (":three", {}, "expected package.module:factory"),
        ("a:b:c", {}, "expected package.module:factory"),
        ("..:three", {}, "expected package.module:factory"),
        (".mynets:three", {}, "expected package.module:factory"),
    ],
)
def test_what_is_wrong_with_a_foreign_factory(
    foreign: Callable[..., nn.Module], name: str, args: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        foreign(name, **args)


def test_what_foreign_code_raises_goes_through(foreign: Callable[..., nn.Module]) -> None:
    with pytest.raises(RuntimeError, match="mine"):
        foreign("mynets:fails")
