"""Recipes: text in, checked values out."""

import contextlib
import dataclasses
import json
import typing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neocog.config import Recipe
from neocog.errors import ConfigError, NeocogError
from neocog.settings import apply_settings, from_dict, load_file, to_dict


def test_a_recipe_survives_json() -> None:
    recipe = from_dict(
        Recipe,
        apply_settings(
            {}, ("data.size=64,48", "data.val=0", "model_args.width=32", "optim.betas=0.8,0.9")
        ),
    )
    assert recipe.data.size == (64, 48)
    assert recipe.model_args == {"width": 32}
    assert from_dict(Recipe, json.loads(json.dumps(to_dict(recipe)))) == recipe


@pytest.mark.parametrize(
    ("setting", "message", "hint"),
    [
        ("engine.epoch=3", "engine has no setting 'epoch'", "'epochs'"),
        ("optim.name=adamm", "optim.name cannot be 'adamm'", "'adam'"),
        ("engine.epochs=many", "engine.epochs takes a whole number or none, got 'many'", ""),
        ("engine.epochs=0", "engine.epochs is at least 1, got 0", ""),
        ("engine=3", "engine is a section, got 3", "engine.NAME=VALUE"),
        ("model.width=3", "model takes text, got {'width': 3}", ""),
        ("seed=true", "seed takes a whole number, got True", ""),
        ("data.val=1.5", "data.val is a share in [0, 1), got 1.5", ""),
        ("data.size=big", "data.size takes a whole number,… or none", ""),
        ("data.size=0", "data.size is height,width in pixels, got (0, 0)", ""),
        ("augment.flip=2", "augment.flip lies in [0, 1], got 2.0", ""),
        ("optim.lr=nan", "optim.lr takes a number or none, got nan", ""),
        ("nothing", "--set takes key=value", "--set engine.batch=64"),
    ],
)
def test_wrong_settings_teach(setting: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(Recipe, apply_settings({}, (setting,)))
    assert message in caught.value.message
    assert hint in caught.value.hint


def numeric_settings() -> list[str]:
    """`section.name` of every number in the recipe."""
    found = []
    for section in dataclasses.fields(Recipe):
        kind = typing.get_type_hints(Recipe)[section.name]
        if dataclasses.is_dataclass(kind):
            for name, hint in typing.get_type_hints(kind).items():
                if {int, float} & {hint, *typing.get_args(hint)}:
                    found.append(f"{section.name}.{name}")
    return found


# Numbers for which −1 makes sense: thresholds that a metric is compared with, seeds.
ANY_NUMBER = {"stop.baseline", "data.seed"}


@pytest.mark.parametrize("setting", sorted(set(numeric_settings()) - ANY_NUMBER))
def test_no_setting_takes_nonsense(setting: str) -> None:
    for nonsense in ("-1", "nan", "inf", "-inf", "1e999"):
        with pytest.raises(ConfigError) as caught:
            from_dict(Recipe, apply_settings({}, (f"{setting}={nonsense}",)))
        assert setting.rpartition(".")[2] in caught.value.message


def test_one_number_is_a_square() -> None:
    assert from_dict(Recipe, apply_settings({}, ("data.size=64",))).data.size == (64, 64)


def test_settings_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('model = "mlp"\n[engine]\nepochs = 3\nbatch = 32\n')
    values = apply_settings(load_file(file), ("engine.epochs=5",))
    recipe = from_dict(Recipe, values)
    assert (recipe.model, recipe.engine.epochs, recipe.engine.batch) == ("mlp", 5, 32)


def test_a_manifest_is_a_config_file(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps({"config": to_dict(Recipe(seed=7)), "seed": 7}))
    assert from_dict(Recipe, load_file(file)).seed == 7


@pytest.mark.parametrize(
    ("name", "content"), [("a.toml", "= 3"), ("a.json", "[]"), ("a.json", "{"), ("gone.toml", None)]
)
def test_files_that_are_no_recipe(tmp_path: Path, name: str, content: str | None) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError):
        load_file(tmp_path / name)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_no_setting_raises_anything_else(text: str) -> None:
    with contextlib.suppress(NeocogError):
        assert isinstance(from_dict(Recipe, apply_settings({}, (text,))), Recipe)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["engine", "optim", "data", "seed", "model", "augment", "loss"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["epochs", "lr", "name", "val", "size", "flip", "betas"]), inner
                )
            ),
            max_leaves=8,
        ),
    )
)
def test_no_values_raise_anything_else(values: dict) -> None:
    with contextlib.suppress(NeocogError):
        assert isinstance(from_dict(Recipe, values), Recipe)


@pytest.mark.parametrize("text", ["a" + ".a" * 50_000 + " = 1", "a = " + "[" * 900, "# " * 40_000])
def test_a_hostile_recipe_is_refused_at_once(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"recipe\.toml"):
        load_file(path)
