"""Bundles: every field and every weight is checked before anything is used."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pickle
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from damage import FUZZ, mutated
from neocog.bundle import Bundle
from neocog.errors import NeocogError, RunError
from neocog.models import catalog
from neocog.records import InputSpec, Manifest, ModelSpec, TaskSpec

if TYPE_CHECKING:
    from pathlib import Path


def bundle(name: str = "mlp", side: int = 8, **args: Any) -> Bundle:
    classes = ("cat", "dog")
    network = catalog.build(name, channels=1, size=(side, side), outputs=2, args=args)
    return Bundle(
        model=ModelSpec(name=name, args=args),
        weights=network.state_dict(),
        input=InputSpec(channels=1, size=(side, side), mean=(0.5,), std=(0.25,)),
        task=TaskSpec(name="classify", args={"classes": list(classes)}),
        classes=classes,
        manifest=Manifest(
            config={}, seed=0, versions={"torch": "2"}, argv=("neocog",), device={}, data={}
        ),
    )


def changed(folder: Path, change: Any) -> None:
    """bundle.json with a change made by a function."""
    value = json.loads((folder / "bundle.json").read_text())
    change(value)
    (folder / "bundle.json").write_text(json.dumps(value))


SMALLEST_FIRST = sorted(catalog.CATALOG, key=lambda name: (len(name), name))
FAMILIES = {catalog.CATALOG[name].factory.split(":")[0]: name for name in SMALLEST_FIRST[::-1]}
"""One network of each file of models, the one of the shortest name: the largest take seconds."""
NARROW: dict[str, dict[str, Any]] = {"deconvnet": {"hidden": 64}, "fcn8s": {"hidden": 64}}
"""Those of a gigabyte at their published width."""


@pytest.mark.parametrize("name", sorted(FAMILIES.values()))
def test_a_bundle_of_every_family_comes_back(name: str, tmp_path: Path) -> None:
    made = bundle(name, side=32, **NARROW.get(name, {}))
    made.save(tmp_path)
    state = torch.get_rng_state()
    again = Bundle.load(tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    for field in dataclasses.fields(Bundle):
        if field.name != "weights":
            assert getattr(again, field.name) == getattr(made, field.name)
    assert again.weights.keys() == made.weights.keys()
    again.network()


SECTIONS = {"model": ModelSpec, "input": InputSpec, "task": TaskSpec, "manifest": Manifest}
PLACES = [(), *((name,) for name in SECTIONS)]
FIELDS = [("format",), ("classes",), *((name,) for name in SECTIONS)]
FIELDS += [(name, f.name) for name, kind in SECTIONS.items() for f in dataclasses.fields(kind)]


def refused_bundle(folder: Path, *words: str) -> None:
    with pytest.raises(RunError) as caught:
        Bundle.load(folder)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_an_unknown_field_is_named(place: tuple[str, ...], tmp_path: Path) -> None:
    bundle().save(tmp_path)

    def change(value: Any) -> None:
        for key in place:
            value = value[key]
        value["code"] = "print()"

    changed(tmp_path, change)
    refused_bundle(tmp_path, "code is unknown")


@pytest.mark.parametrize("field", FIELDS, ids=".".join)
def test_a_missing_or_mistyped_field_is_named(field: tuple[str, ...], tmp_path: Path) -> None:
    bundle().save(tmp_path)
    whole = (tmp_path / "bundle.json").read_text()
    *place, name = field

    def change(value: Any, to: Any = None) -> None:
        for key in place:
            value = value[key]
        if to is None:
            del value[name]
        else:
            value[name] = to

    changed(tmp_path, change)
    refused_bundle(tmp_path, f"{name} is missing")
    for wrong in (1.5, [[]], {"a": 1}, True, "all"):
        kind = type(json.loads(whole)[place[0]][name] if place else json.loads(whole)[name])
        if isinstance(wrong, kind) and name not in ("views", "name", "classes", "versions"):
            continue
        if name == "name" and isinstance(wrong, str):
            continue
        (tmp_path / "bundle.json").write_text(whole)
        changed(tmp_path, lambda value, wrong=wrong: change(value, wrong))
        refused_bundle(tmp_path, name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v["input"].update(channels=3), "a mean and a std for each of 3"),
        (lambda v: v["input"].update(size=[8, 9]), "body.linear1.weight is (256, 64)"),
        (lambda v: v["input"].update(size=[8, 10**9]), "input.size"),
        (lambda v: v["input"].update(size=[8, True]), "input.size"),
        (lambda v: v["input"].update(std=[0.0]), "input.std"),
        (lambda v: v["input"].update(views="all"), "views is one of"),
        (lambda v: v.update(classes=["dog", "cat"]), "the task has cat, dog"),
        (lambda v: v["task"].update(name="clasify"), "no task 'clasify'"),
        (lambda v: v["task"].update(args={"classes": 3}), "classify"),
        (lambda v: v["task"]["args"].update(more=1), "more"),
        (lambda v: v["model"].update(args={"widht": 8}), "no setting 'widht'"),
        (lambda v: v["model"].update(args={"width": "8"}), "width"),
        (lambda v: v["model"].update(args={"width": 8}), "body.linear1.weight is (256, 64)"),
        (lambda v: v["model"].update(args={"depth": 3}), "missing body.linear3"),
        (lambda v: v["model"].update(args={"depth": 1}), "unknown body.linear2"),
        (lambda v: v["model"].update(name="cnn"), "missing stages"),
        (lambda v: v.update(format=True), "format True"),
        (lambda v: v.update(format=99), "format 99, expected 5"),
    ],
)  # fmt: skip
def test_parts_that_do_not_belong_together_are_refused(
    change: Any, words: str, tmp_path: Path
) -> None:
    bundle().save(tmp_path)
    changed(tmp_path, change)
    refused_bundle(tmp_path, words)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("mlp", {"width": 10**9}),
        ("mlp", {"width": 10**18}),
        ("mlp", {"width": 10**30}),
        ("mlp", {"depth": 10**9, "width": 1}),
        ("cnn", {"convs": 10**9, "width": 1}),
        ("cnn", {"kernel": 10**9 + 1}),
        ("speednet", {"width": 10**7}),
    ],
)
def test_a_network_that_is_larger_than_its_weights_is_not_built(
    name: str, args: dict[str, int], tmp_path: Path
) -> None:
    bundle().save(tmp_path)
    changed(tmp_path, lambda value: value["model"].update(name=name, args=args))
    began = time.monotonic()
    refused_bundle(tmp_path, "damaged")
    assert time.monotonic() - began < 5


def test_weights_of_a_bundle_are_never_a_pickle(tmp_path: Path) -> None:
    made = bundle()
    made.save(tmp_path)
    stream = io.BytesIO()
    torch.save(made.weights, stream)
    for content in (stream.getvalue(), pickle.dumps(dict(made.weights))):
        (tmp_path / "weights.safetensors").write_bytes(content)
        refused_bundle(tmp_path, "pickle", "damaged")
    (tmp_path / "weights.safetensors").unlink()
    refused_bundle(tmp_path, "weights.safetensors", "No such file")


def test_every_flipped_byte_of_the_weights_is_noticed(tmp_path: Path) -> None:
    bundle(width=4, depth=1).save(tmp_path)
    path = tmp_path / "weights.safetensors"
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    assert len(whole) - start >= 4 * 4 * 64
    for place in range(start, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refused_bundle(tmp_path, "damaged", "SHA-256")
    path.write_bytes(whole)
    Bundle.load(tmp_path)


def test_a_bundle_of_before_is_read_without_a_digest(tmp_path: Path) -> None:
    made = bundle()
    made.save(tmp_path)
    save_file(dict(made.weights), tmp_path / "weights.safetensors")
    again = Bundle.load(tmp_path).weights
    assert all(torch.equal(again[name], value) for name, value in made.weights.items())


def test_a_description_that_is_not_strict_json_is_refused(tmp_path: Path) -> None:
    bundle().save(tmp_path)
    text = (tmp_path / "bundle.json").read_text()
    for wrong, words in [
        (text.replace('"seed": 0', '"seed": 0, "seed": 1'), "'seed' occurs twice"),
        (text.replace("0.25", "NaN"), "NaN"),
        (text.replace("0.25", "1e999"), "too large"),
        ("[" * 100_000, "nested too deeply"),
        ("", "damaged"),
        ("[]", "no object"),
    ]:
        assert wrong != text
        (tmp_path / "bundle.json").write_text(wrong)
        refused_bundle(tmp_path, words)


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("bundle")
    bundle(width=4).save(folder)
    return folder, (folder / "bundle.json").read_text()


values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=3), st.sampled_from(["mlp", "cnn", "regress", "a:b", 8, 2]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)  # fmt: skip


@FUZZ
@given(st.sampled_from([f for f in FIELDS if f[0] != "manifest"]), values, st.data())
def test_a_bundle_with_any_value_is_read_or_refused(
    small_bundle: tuple[Path, str], field: tuple[str, ...], value: Any, data: st.DataObject
) -> None:
    folder, text = small_bundle
    whole = json.loads(text)
    *place, name = field
    inside = whole
    for key in place:
        inside = inside[key]
    if name == "args" and data.draw(st.booleans()):
        known = ["width", "depth", "norm", "dropout", "classes", "label_smoothing", "columns"]
        inside[name][data.draw(st.sampled_from(known))] = value
    else:
        inside[name] = value
    (folder / "bundle.json").write_text(json.dumps(whole))
    with contextlib.suppress(NeocogError):
        Bundle.load(folder).network()


@FUZZ
@given(st.integers(0, 2**32))
def test_a_mutated_bundle_is_read_or_refused(small_bundle: tuple[Path, str], seed: int) -> None:
    folder, text = small_bundle
    (folder / "bundle.json").write_bytes(mutated(text.encode(), seed))
    with contextlib.suppress(NeocogError):
        Bundle.load(folder).network()
