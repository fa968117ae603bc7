"""What has changed since a run began: refused or warned of, with both values."""

from __future__ import annotations

from typing import Any

import pytest

from neocog.errors import RunError
from neocog.verbs.world import check

WORLD: dict[str, Any] = {
    "data": "a" * 64,
    "classes": ["cat", "dog"],
    "settings.optim.lr": 0.1,
    "code": "123",
    "version of torch": "2.13.0",
    "threads": 4,
}


class Said:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("data", "b" * 64, "data was aaaa"),
        ("classes", ["cat", "fox"], "classes was cat, dog, is cat, fox"),
        ("settings.optim.lr", 0.2, "settings.optim.lr was 0.1, is 0.2"),
    ],
)
def test_what_decides_is_refused_unless_asked_for(name: str, value: Any, words: str) -> None:
    said = Said()
    with pytest.raises(RunError, match=words) as caught:
        check(WORLD, WORLD | {name: value}, run="r", anyway=False, console=said)  # type: ignore[arg-type]
    assert "--anyway" in caught.value.hint
    check(WORLD, WORLD | {name: value}, run="r", anyway=True, console=said)  # type: ignore[arg-type]
    assert len(said.lines) == 1
    assert words in said.lines[0]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("code", "456", "code was 123, is 456"),
        ("version of torch", "2.14.0", "version of torch was 2.13.0, is 2.14.0"),
        ("threads", 2, "threads was 4, is 2"),
    ],
)
def test_what_moves_last_bits_is_warned_of(name: str, value: Any, words: str) -> None:
    said = Said()
    check(WORLD, WORLD | {name: value}, run="r", anyway=False, console=said)  # type: ignore[arg-type]
    (line,) = said.lines
    assert words in line
    assert "last bits" in line


def test_the_same_world_is_silent() -> None:
    said = Said()
    check(WORLD, dict(WORLD), run="r", anyway=False, console=said)  # type: ignore[arg-type]
    check({}, WORLD, run="r", anyway=False, console=said)  # type: ignore[arg-type]
    assert said.lines == []
