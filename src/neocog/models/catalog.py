"""Names of architectures, and how a name becomes a network. Floor 2, room models.

Imports floor 0 only: listing and searching load no torch. A factory is imported when its network is
built. `package.module:factory` stands wherever a name of the catalogue does, and so does a network
in a line, `conv 32 3; relu; gap; linear`, whose words are in `notation`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import importlib
import inspect
import os
import re
import sys
import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Union

from neocog.errors import ConfigError, near
from neocog.geometry import LAYOUTS, noun, size_text
from neocog.models.table import CATALOG, Entry
from neocog.settings import from_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn

__all__ = [
    "CATALOG",
    "Entry",
    "Keyword",
    "build",
    "complete",
    "describe",
    "is_foreign",
    "is_line",
    "is_own",
    "names",
    "sample",
]

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyword:
    """One argument of a factory that `--set model_args.NAME=VALUE` sets."""

    name: str
    """The keyword."""
    kind: str
    """What it takes: `int`, `float`, `bool`, `str`, `none`, or its values, joined by `|`."""
    default: Any
    """Its value when nobody sets it; `inspect.Parameter.empty` where it must be set."""


_GIVEN = ("channels", "size", "outputs")
"""What the data and the task decide."""


def names(pattern: str | None = None, gives: Literal["classes", "map"] | None = None) -> list[str]:
    """Names of the catalogue in order, all or those that match.

    Args:
        pattern: a glob where it holds `*`, `?` or `[`, else a part of the name; case is ignored.
        gives: only those that answer so, as `Entry.gives` has it.

    >>> names("mlp*"), names("LeNet5")
    (['mlp'], ['lenet5'])
    """
    known = [name for name in sorted(CATALOG) if gives in (None, CATALOG[name].gives)]
    if pattern is None:
        return known
    wanted = pattern.lower()
    if not any(sign in wanted for sign in "*?["):
        wanted = f"*{wanted}*"
    return [name for name in known if fnmatch.fnmatchcase(name.lower(), wanted)]


def sample(name: str) -> tuple[int, int, int]:
    """C×H×W that a network was published for; for one from outside, that of ImageNet; for one in a
    line, a small picture.

    Raises:
        ConfigError: no such name.
    """
    if is_line(name):
        return (3, 32, 32)
    if is_foreign(name):
        return (3, 224, 224)
    if name not in CATALOG:
        raise ConfigError(f"no model is called {name!r}", near(name, CATALOG))
    return CATALOG[name].sample


def is_foreign(name: str) -> bool:
    """Whether building this name runs code that is not ours; ask the user before, not a file.

    >>> is_foreign("resnet18"), is_foreign("mypackage.nets:small")
    (False, True)
    """
    return ":" in name and not is_line(name)


def is_line(name: str) -> bool:
    """Whether this is a network in a line, which is data: reading one runs nothing.

    It holds a `;`, a space, or a word of the notation in or before parentheses; or it is such a
    word. The name of a factory is none of these.

    >>> is_line("conv 8 3 pad=same:reflect; gap; linear"), is_line("res(relu)"), is_line("linear")
    (True, True, True)
    >>> is_line("resnet18"), is_line("mypackage.nets:linear"), is_line("(unnamed)")
    (False, False, False)
    """
    from neocog.models.notation.grammar import KINDS
    from neocog.models.notation.words import WORDS

    if ";" in name or any(sign.isspace() for sign in name):
        return True
    if "(" in name:
        return any(word in WORDS or word in KINDS for word in re.findall(r"\w+", name))
    return name in WORDS and name not in CATALOG


def is_own(name: str) -> bool:
    """Whether building this name runs our own code only: one of the catalogue, or a line.

    >>> is_own("resnet18"), is_own("conv 8 3; gap; linear"), is_own("mypackage.nets:small")
    (True, True, False)
    """
    return name in CATALOG or is_line(name)


def build(
    name: str,
    *,
    channels: int,
    size: tuple[int, ...],
    outputs: int,
    args: Mapping[str, Scalar | None],
) -> nn.Module:
    """The network of that name, with fresh weights from torch's generator.

    A factory of the catalogue gets `channels`, `size` and `outputs` and the checked `args`. A
    foreign factory gets those of the three that its signature names. It is imported with the
    current directory first on the path, as `python -m` does. A line says all that it takes.

    Args:
        name: a name of the catalogue, `package.module:factory`, or a line.
        channels: 1 for grey, 3 for RGB.
        size: height and width in pixels; the length of signals; depth, height and width of volumes.
        outputs: width of the head.
        args: further keywords of the factory.

    Raises:
        ConfigError: an unknown name or keyword (with the near one), a value of the wrong type or
            out of range, a size that is too small, or a foreign factory that is missing or makes
            something else than an nn.Module; or a mistake in a line, with its place.
    """
    if is_line(name):
        from neocog.models.notation.build import line_net

        if args:
            raise ConfigError(
                f"a network in a line takes no arguments, got {', '.join(args)}",
                "write them into the line",
            )
        return line_net(name, channels=channels, size=size, outputs=outputs)
    from torch import nn

    _check_rank(name, size)
    with _importing(name) as factory:
        parameters = inspect.signature(factory).parameters
        given = {"channels": channels, "size": size, "outputs": outputs}
        keywords = _check(name, factory, args)
        keywords |= {key: value for key, value in given.items() if key in parameters}
        network = factory(**keywords)
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"{name} made a {type(network).__name__}, expected a torch.nn.Module",
            "the factory returns the network itself",
        )
    return network


def _check_rank(name: str, size: tuple[int, ...]) -> None:
    """Raises a ConfigError where a network of the catalogue takes other samples than these."""
    entry = CATALOG.get(name)
    if entry is None or len(size) in entry.dims:
        return
    takes = " and ".join(f"{noun((0,) * dims)}s ({LAYOUTS[dims]})" for dims in entry.dims)
    others = [other for other in sorted(CATALOG) if len(size) in CATALOG[other].dims]
    raise ConfigError(
        f"{name} takes {takes}, got a {noun(size)} of {size_text(size)}",
        f"{noun(size)}s are taken by {', '.join(others)}"
        if others
        else "a sample has one, two or three sides",
    )


def describe(name: str) -> tuple[Keyword, ...]:
    """The keywords that `model_args` may set, in the factory's order; none for a line. Loads torch.

    Raises:
        ConfigError: no such name.
    """
    if is_line(name):
        return ()
    with _importing(name) as factory:
        return tuple(
            Keyword(name=key, kind=_words(kind), default=default)
            for key, (kind, default) in _settable(factory).items()
        )


def complete(name: str, args: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """`args` and the default of every other keyword of a network of ours, so that what they say can
    be built again when defaults have changed; those that are decided from the data stay open."""
    if name not in CATALOG:
        return dict(args)
    defaults = {one.name: one.default for one in describe(name)}
    return {
        key: value for key, value in defaults.items() if isinstance(value, bool | int | float | str)
    } | dict(args)


@contextlib.contextmanager
def _importing(name: str) -> Iterator[Callable[..., Any]]:
    """The factory of that name; for a foreign one the current directory is importable meanwhile."""
    if not is_foreign(name):
        if name not in CATALOG:
            raise ConfigError(f"no model is called {name!r}", near(name, CATALOG))
        module, _, attribute = CATALOG[name].factory.partition(":")
        yield getattr(importlib.import_module(f"neocog.{module}"), attribute)
        return
    here = os.getcwd()  # noqa: PTH109 - sys.path holds text
    sys.path.insert(0, here)
    try:
        yield _foreign(name)
    finally:
        with contextlib.suppress(ValueError):  # the foreign code may have taken it out itself
            sys.path.remove(here)


def _foreign(name: str) -> Callable[..., Any]:
    """The factory `package.module:factory`.

    What the foreign module raises while it is imported is its own affair and goes through.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), attribute]):
        raise ConfigError(
            f"{name!r} is not the name of a factory, expected package.module:factory",
            "nets:small is the function small of nets.py in the current directory",
        )
    # A file that was written a moment ago may be missing from the finders' directory caches.
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{name}: no module {error.name!r}",
            f"write {module_name[:-3]}:{attribute}"
            if module_name.endswith(".py")
            else "it must be installed, or lie in the current directory",
        ) from error
    if not hasattr(module, attribute):
        public = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise ConfigError(f"{module_name} has no {attribute!r}", near(attribute, public))
    factory = getattr(module, attribute)
    if not (inspect.isroutine(factory) or isinstance(factory, type)):
        raise ConfigError(
            f"{name} is a {type(factory).__name__}, expected a function or class that makes one",
            f"def {attribute}(*, channels, size, outputs): return ...",
        )
    return typing.cast("Callable[..., Any]", factory)


def _settable(factory: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Annotation and default of each keyword that the user may set."""
    owner: Any = factory
    if isinstance(factory, type):
        owner = owner.__init__
    try:
        kinds = typing.get_type_hints(owner)
    except (NameError, TypeError, AttributeError):  # names that exist for type checkers only
        kinds = {}
    found = {}
    for key, parameter in inspect.signature(factory).parameters.items():
        if key in _GIVEN or parameter.kind not in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        ):
            continue
        kind = kinds.get(key)
        found[key] = (kind if _is_plain(kind) else Scalar | None, parameter.default)
    return found


def _check(
    name: str, factory: Callable[..., Any], args: Mapping[str, Scalar | None]
) -> dict[str, Any]:
    """`args` as the factory's annotations want them, by the rules that every setting goes by."""
    for key in _GIVEN:
        if key in args:
            raise ConfigError(
                f"model_args.{key} is decided by the data and the task", f"leave {key} out"
            )
    settable = _settable(factory)
    empty = inspect.Parameter.empty
    missing = [key for key, (_, default) in settable.items() if default is empty]
    for key in missing:
        if key not in args:
            raise ConfigError(f"{name} needs {key!r}", f"--set model_args.{key}=VALUE")
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(factory).parameters.values()):
        settable |= {key: (Scalar | None, None) for key in args if key not in settable}
    if args and not settable:
        raise ConfigError(f"{name} takes no arguments, got {', '.join(args)}")
    fields = [(key, kind, dataclasses.field(default=None)) for key, (kind, _) in settable.items()]
    checked: Any = from_dict(dataclasses.make_dataclass("Args", fields), dict(args), "model_args")
    return {key: getattr(checked, key) for key in args}


def _is_plain(kind: Any) -> bool:
    """Whether an annotation speaks of scalars, choices and tuples of them only."""
    origin = typing.get_origin(kind)
    if origin is Literal:
        return True
    if origin in (Union, types.UnionType, tuple):
        return all(_is_plain(part) for part in typing.get_args(kind))
    return kind in (bool, int, float, str, types.NoneType)


def _words(kind: Any) -> str:
    """A plain annotation as people write it.

    >>> _words(int | None), _words(Literal["max", "avg"])
    ('int|none', 'max|avg')
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "|".join(str(part) for part in parts)
    if origin in (Union, types.UnionType):
        return "|".join(_words(part) for part in parts)
    if origin is tuple:
        return ",".join(_words(part) for part in parts)
    return "none" if kind is types.NoneType else str(kind.__name__)
