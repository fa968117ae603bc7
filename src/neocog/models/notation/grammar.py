"""Text → tree, and back. Floor 2, room models; imports errors and the standard library only.

    line  := items
    items := item (";" item)* [";"]
    item  := [name ":"] (layer | [kind] "(" items ("|" items)* ")" ["*" number])
    layer := word (value | word "=" value)*
    value := word [":" word]

`kind` is res, cat or add; only these have several parts. What words mean is not known here.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neocog.errors import ConfigError, near

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "KINDS",
    "Block",
    "Item",
    "Layer",
    "Line",
    "Place",
    "Value",
    "cut",
    "parse",
    "render",
    "wrong",
]

KINDS = ("res", "cat", "add")
"""What may stand before a parenthesis."""

_MOST_TEXT = 20_000
_MOST_DEPTH = 32
_MOST_TIMES = 1_000
_WIDE, _BEFORE = 76, 36
"""Columns of text that an error shows, and how many of them lie before the place."""
_TOKEN = re.compile(r"\s+|[;()|*:=,]|[^\s;()|*:=,]+")
_SIGNS = ";()|*:=,"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Place:
    """Part of the text, from `start` to before `end`, in characters. Trees that differ in places
    only are equal."""

    start: int
    """First character."""
    end: int
    """One past the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A word, as written."""

    text: str
    """Its characters."""
    place: Place = field(compare=False)
    """Where it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A word and its values."""

    word: Value
    """What it is."""
    values: tuple[Value, ...]
    """Values without a name, in order."""
    named: tuple[tuple[Value, Value], ...]
    """Names and values, in order."""
    label: str
    """What the user calls it; empty: nothing."""
    place: Place = field(compare=False)
    """All of it, without the label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What stands in parentheses."""

    kind: str
    """One of `KINDS`; empty: layers one after the other."""
    branches: tuple[tuple[Item, ...], ...]
    """One, or for `KINDS` several; none is empty."""
    times: int
    """How often, one after the other."""
    label: str
    """What the user calls it; empty: nothing."""
    place: Place = field(compare=False)
    """All of it, without the label."""
    repeat: Place = field(compare=False)
    """The number of times, or the end of the block."""


Item = Layer | Block


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A network as it was written."""

    items: tuple[Item, ...]
    """What follows one another; at least one."""
    text: str = field(compare=False)
    """The characters, for errors."""


def parse(text: str) -> Line:
    """Read a line.

    Raises:
        ConfigError: it is no line; with the place and the remedy.

    >>> line = parse("conv 32 3; (relu)*2")
    >>> line.items[0].word.text, [value.text for value in line.items[0].values]
    ('conv', ['32', '3'])
    >>> parse("conv 32 3; (relu")
    Traceback (most recent call last):
        ...
    neocog.errors.ConfigError: this parenthesis is never closed
      conv 32 3; (relu
                 ^
      hint: write ) where the group ends
    """
    if len(text) > _MOST_TEXT:
        raise ConfigError(
            f"a network in a line has at most {_MOST_TEXT:,} characters, got {len(text):,}",
            "repeat with ( … )*N; or write the network in Python: --model package.module:factory",
        )
    reader = _Reader(text)
    items = reader.items(depth=0)
    reader.end()
    return Line(items=items, text=text)


def render(line: Line | Item) -> str:
    """A line as text, with the usual spaces; `parse` makes the same tree of it.

    >>> render(parse("stem:conv 8 3  pad = same:reflect;res( relu|identity )*2 ;gap"))
    'stem: conv 8 3 pad=same:reflect; res(relu | identity)*2; gap'
    """
    if isinstance(line, Line):
        return _joined(line.items)
    label = f"{line.label}: " if line.label else ""
    if isinstance(line, Layer):
        named = [f"{name.text}={value.text}" for name, value in line.named]
        return label + " ".join([line.word.text, *(value.text for value in line.values), *named])
    times = f"*{line.times}" if line.times > 1 else ""
    return f"{label}{line.kind}({' | '.join(map(_joined, line.branches))}){times}"


def _joined(items: Iterable[Item]) -> str:
    return "; ".join(map(render, items))


def wrong(text: str, place: Place, message: str, hint: str = "") -> ConfigError:
    """An error with the text below its message, and a mark below the place.

    Args:
        text: the line; of a long one, the part around the place is shown.
        place: what is wrong.
        message: what was expected and what was found.
        hint: what to do.
    """
    begin = 0
    if len(text) > _WIDE:
        begin = max(0, min(place.start - _BEFORE, len(text) - _WIDE))
    shown = "".join(map(_plain, text[begin : begin + _WIDE]))
    ahead = "… " if begin else ""
    behind = " …" if begin + _WIDE < len(text) else ""
    wide = max(1, min(place.end, begin + _WIDE) - place.start)
    mark = " " * (len(ahead) + place.start - begin) + "^" * wide
    return ConfigError(f"{message}\n  {ahead}{shown}{behind}\n  {mark}", hint)


def _plain(sign: str) -> str:
    """A character that takes up one column, so that the mark stands below the place."""
    if sign.isspace():
        return " "
    narrow = unicodedata.east_asian_width(sign) not in "WF"
    return sign if sign.isprintable() and narrow and unicodedata.category(sign)[0] != "M" else "?"


class _Reader:
    """Reads tokens from left to right; every method leaves off behind what it read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [
            Value(text=found.group(), place=Place(found.start(), found.end()))
            for found in _TOKEN.finditer(text)
            if not found.group().isspace()
        ]
        self.at = 0
        self.open: list[Value] = []
        """Parentheses that wait to be closed."""

    def items(self, depth: int) -> tuple[Item, ...]:
        """Layers and groups up to `)`, `|` or the end."""
        found = []
        while self._sign() not in ("", ")", "|"):
            found.append(self._item(depth))
            if self._sign() != ";":
                break
            self.at += 1
        if not found:
            raise self._nothing()
        return tuple(found)

    def end(self) -> None:
        """Nothing is left."""
        sign = self._sign()
        if sign == ")":
            raise self._here("this parenthesis was never opened", "write ( where the group begins")
        if sign == "|":
            raise self._here("| separates branches, and here are none", _BRANCHES)
        if sign:
            raise self._here(
                f"expected ; or the end, found {self._shown()}", "layers are separated by ;"
            )

    def _item(self, depth: int) -> Item:
        label = self._label()
        if self._sign() == "(" or (self._sign(1) == "(" and self._sign() not in _SIGNS):
            return self._block(depth, label)
        return self._layer(label)

    def _label(self) -> str:
        """`name:` before an item."""
        if self._sign(1) != ":" or self._sign() in _SIGNS:
            return ""
        name = self.tokens[self.at]
        if not _NAME.fullmatch(name.text) or len(name.text) > 40:
            raise self._here(
                f"{cut(name.text)!r} cannot name a layer: expected letters, digits and _",
                "for example stem: conv 32 3",
            )
        self.at += 2
        return name.text

    def _layer(self, label: str) -> Layer:
        word = self._word("a layer")
        values: list[Value] = []
        named: list[tuple[Value, Value]] = []
        while (sign := self._sign()) not in ("", ";", "|", ")"):
            if sign == "*":
                inside = self.text[word.place.start : self.tokens[self.at - 1].place.end]
                inside = inside if len(inside) <= 40 and inside.isprintable() else "…"
                raise self._here("only what stands in parentheses is repeated", f"({inside})*2")
            if sign == ",":
                raise self._here("values are separated by spaces", "leave the comma out")
            if sign == "(":
                raise self._here(
                    "expected a value, found a parenthesis", "layers are separated by ;"
                )
            if self._sign(1) == "=":
                name = self._word("a value")
                self.at += 1
                named.append((name, self._value("a value after =")))
            else:
                values.append(self._value("a value"))
        end = self.tokens[self.at - 1].place.end
        place = Place(word.place.start, end)
        return Layer(word=word, values=tuple(values), named=tuple(named), label=label, place=place)

    def _block(self, depth: int, label: str) -> Block:
        first = self.tokens[self.at]
        kind = "" if first.text == "(" else first.text
        if kind and kind not in KINDS:
            raise self._here(
                f"expected {', '.join(KINDS)} or nothing before a parenthesis, found {cut(kind)!r}",
                f"{near(kind, KINDS)}; values follow after spaces, as in conv 32 3",
            )
        self.at += bool(kind)
        if depth == _MOST_DEPTH:
            raise self._here(
                f"more than {_MOST_DEPTH} parentheses within each other",
                "write the inner ones one after the other",
            )
        self.open.append(self.tokens[self.at])
        self.at += 1
        branches = [self.items(depth + 1)]
        while self._sign() == "|":
            if not kind:
                raise self._here("| separates branches, and this group has none", _BRANCHES)
            if kind == "res" and len(branches) == 2:
                raise self._here(
                    "res( … | … ) has one shortcut, and this would be a second one",
                    "add( … | … | … ) has any number of branches",
                )
            self.at += 1
            branches.append(self.items(depth + 1))
        if self._sign() != ")":
            raise self._unclosed()
        self.open.pop()
        self.at += 1
        close = self.tokens[self.at - 1].place
        times, repeat = self._times(close)
        return Block(
            kind=kind,
            branches=tuple(branches),
            times=times,
            label=label,
            place=Place(first.place.start, close.end),
            repeat=repeat,
        )

    def _times(self, close: Place) -> tuple[int, Place]:
        """`*N` behind a parenthesis."""
        if self._sign() != "*":
            return 1, close
        self.at += 1
        count = self._word("how often, after *")
        times = int(count.text) if _is_whole(count.text) else 0
        if not 1 <= times <= _MOST_TIMES:
            raise wrong(
                self.text,
                count.place,
                f"a group is repeated 1 to {_MOST_TIMES:,} times, got {cut(count.text)!r}",
                "for example (conv 64 3 pad=same; relu)*2; to leave a group out, delete it",
            )
        return times, count.place

    def _value(self, what: str) -> Value:
        """A word, or two with a colon between them."""
        word = self._word(what)
        if self._sign() != ":":
            return word
        self.at += 1
        mode = self._word("a word after the colon")
        place = Place(word.place.start, mode.place.end)
        return Value(text=f"{word.text}:{mode.text}", place=place)

    def _word(self, what: str) -> Value:
        if self._sign() in ("", *_SIGNS):
            raise self._here(f"expected {what}, found {self._shown()}", "see: neocog models line")
        self.at += 1
        return self.tokens[self.at - 1]

    def _sign(self, ahead: int = 0) -> str:
        """The token at hand, or one further on; empty at the end."""
        at = self.at + ahead
        return self.tokens[at].text if at < len(self.tokens) else ""

    def _shown(self) -> str:
        return repr(cut(self._sign())) if self._sign() else "the end"

    def _here(self, message: str, hint: str) -> ConfigError:
        """An error about the token at hand; at the end, behind the last one."""
        if self.at < len(self.tokens):
            place = self.tokens[self.at].place
        else:
            end = self.tokens[-1].place.end if self.tokens else 0
            place = Place(end, end + 1)
        return wrong(self.text, place, message, hint)

    def _nothing(self) -> ConfigError:
        """An error about items that are missing."""
        if not self.tokens:
            return ConfigError("the line is empty", 'for example --model "conv 32 3; gap; linear"')
        if not self._sign() and self.open:
            return self._unclosed()
        return self._here(
            f"expected a layer, found {self._shown()}",
            "identity is the layer that changes nothing",
        )

    def _unclosed(self) -> ConfigError:
        """An error about the innermost open group, at the token that cannot stand in it."""
        if self._sign():
            return self._here(
                f"expected ; or ), found {self._shown()}", "layers are separated by ;"
            )
        return wrong(
            self.text,
            self.open[-1].place,
            "this parenthesis is never closed",
            "write ) where the group ends",
        )


_BRANCHES = "branches stand in cat( … | … ), add( … | … ) or res( … | shortcut )"


def _is_whole(text: str) -> bool:
    """A whole number that is not absurdly long."""
    return text.isascii() and text.isdigit() and len(text) < 10


def cut(text: str) -> str:
    """A word of the user's, short enough for a message."""
    return text if len(text) <= 40 else f"{text[:40]}…"
