"""How text becomes a recipe. Floor 0: standard library only.

A recipe comes from defaults, a TOML file or a run's manifest, then `--set section.key=value`. Every
value is checked against its annotation; an unknown key suggests the near one.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import tomllib
import types
import typing
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union

from neocog.errors import ConfigError, near

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["apply_settings", "from_dict", "load_file", "merge", "paths", "place", "to_dict"]

T = TypeVar("T")
_LONGEST = 1 << 16
"""Characters of a recipe; all settings together take some 3,000."""
_DOTS = 1000
"""In one line of it."""


def to_dict(recipe: Any) -> dict[str, Any]:
    """The recipe as nested dictionaries of JSON values."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return plain


def from_dict(cls: type[T], values: dict[str, Any], where: str = "") -> T:
    """A dataclass from nested dictionaries, every value checked against its annotation.

    Raises:
        ConfigError: unknown key (with the near one), wrong type, or a value out of range.

    >>> from neocog.config import Recipe
    >>> from_dict(Recipe, {"engine": {"epochs": 3}}).engine.epochs
    3
    >>> from_dict(Recipe, {"engine": {"epoch": 3}})
    Traceback (most recent call last):
        ...
    neocog.errors.ConfigError: engine has no setting 'epoch'
      hint: did you mean 'epochs'?
    """
    kinds = typing.get_type_hints(cls)
    checked: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{where}.{name}" if where else name
        if name not in kinds:
            owner = where or "the recipe"
            raise ConfigError(f"{owner} has no setting {name!r}", near(name, kinds))
        checked[name] = _convert(kinds[name], value, path)
    return cls(**checked)


def _convert(kind: Any, value: Any, path: str) -> Any:
    """`value` as `kind`; integers pass for floats, and a string is parsed where text was given."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise ConfigError(
                f"{path} is a section, got {value!r}", f"set its parts: {path}.NAME=VALUE"
            )
        return from_dict(kind, value, path)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        for option in args:
            if option is not type(None):
                try:
                    return _convert(option, value, path)
                except ConfigError:
                    continue
    elif origin is Literal:
        for option in args:
            if value == option and isinstance(value, bool) == isinstance(option, bool):
                return option
        if isinstance(value, str) and all(isinstance(option, str) for option in args):
            raise ConfigError(f"{path} cannot be {value!r}", near(value, args))
    elif args in ((int, int), (int, ...)) and isinstance(value, int):  # 64 means 64,64
        return _convert(kind, [value, value], path)
    elif origin is tuple and args[1:] == (...,) and isinstance(value, list | tuple):
        return tuple(_convert(args[0], item, path) for item in value)
    elif origin is tuple and isinstance(value, list | tuple) and len(value) == len(args):
        return tuple(_convert(one, item, path) for one, item in zip(args, value, strict=True))
    elif origin is dict and isinstance(value, dict):
        return {str(k): _convert(args[1], v, f"{path}.{k}") for k, v in value.items()}
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif kind in (bool, int, str) and type(value) is kind:
        return value
    raise ConfigError(f"{path} takes {_describe(kind)}, got {value!r}")


def _describe(kind: Any) -> str:
    """The annotation in words."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in args)
    if origin is Literal:
        return "one of " + ", ".join(str(option) for option in args)
    if origin is tuple and args[1:] == (...,):
        return f"{_describe(args[0])},…"
    if origin is tuple:
        return ",".join(_describe(option) for option in args)
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        type(None): "none",
    }
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _parse_value(text: str) -> Any:
    """Text of `--set` as a TOML value; `a,b` is a list, `none` is None, the rest is a string.

    >>> _parse_value("0.5"), _parse_value("true"), _parse_value("64,48"), _parse_value("reflect")
    (0.5, True, [64, 48], 'reflect')
    """
    if text.lower() in ("none", "null"):
        return None
    for attempt in (text, f"[{text}]"):
        try:
            return tomllib.loads(f"v = {attempt}")["v"]
        except tomllib.TOMLDecodeError:
            continue
    return text


def place(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`values` with one value laid at a dotted path; the argument stays as it is.

    Raises:
        ConfigError: the path goes through a plain value.

    >>> place({"engine": {"epochs": 3}}, "engine.batch", 64)
    {'engine': {'epochs': 3, 'batch': 64}}
    """
    merged: dict[str, Any] = copy.deepcopy(values)
    *sections, name = path.split(".")
    inner = merged
    for section in sections:
        inner = inner.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{path}: {section} is a value, not a section")
    inner[name] = value
    return merged


def paths(values: dict[str, Any]) -> set[str]:
    """The dotted paths of all settings.

    >>> sorted(paths({"seed": 1, "engine": {"epochs": 3, "batch": 8}}))
    ['engine.batch', 'engine.epochs', 'seed']
    """
    found: set[str] = set()
    for name, value in values.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}" for inner in paths(value)}
        else:
            found.add(name)
    return found


def merge(values: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`values` with `over` laid on top, section by section; the arguments stay as they are.

    >>> merge({"engine": {"epochs": 3, "batch": 8}}, {"engine": {"epochs": 5}, "seed": 1})
    {'engine': {'epochs': 5, 'batch': 8}, 'seed': 1}
    """
    merged = copy.deepcopy(values)
    for name, value in over.items():
        below = merged.get(name)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[name] = merge(below or {}, value) if both else copy.deepcopy(value)
    return merged


def apply_settings(values: dict[str, Any], settings: tuple[str, ...]) -> dict[str, Any]:
    """`values` with `section.key=value` settings laid over them; the argument stays as it is.

    Raises:
        ConfigError: a setting without `=`, or one that goes through a plain value.

    >>> apply_settings({"engine": {"epochs": 3}}, ("engine.batch=64",))
    {'engine': {'epochs': 3, 'batch': 64}}
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"--set takes key=value, got {setting!r}", "--set engine.batch=64")
        values = place(values, path.strip(), _parse_value(text.strip()))
    return values


def load_file(path: Path) -> dict[str, Any]:
    """The settings of a TOML file, or the recipe of a run's `manifest.json`.

    Raises:
        ConfigError: the file is missing or is neither.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            manifest = json.loads(text)
            if not isinstance(manifest, dict) or not isinstance(manifest.get("config"), dict):
                raise ConfigError(
                    f"{path} has no recipe in it", "give a TOML file or a run's manifest.json"
                )
            config: dict[str, Any] = manifest["config"]
            return config
        # tomllib takes the square of a key's parts in time, and a file of 100 KB for minutes.
        if len(text) > _LONGEST or max(line.count(".") for line in text.split("\n")) > _DOTS:
            raise ConfigError(f"{path} is no recipe: it is too long, or nested too deep")
        return tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} cannot be parsed: {error}", "expected TOML") from error
