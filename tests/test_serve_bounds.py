"""Limits as people write them, and those that no server can live with."""

from __future__ import annotations

import dataclasses

import pytest

from neocog.errors import ConfigError
from neocog.serve.bounds import RANGES, limits_of
from neocog.serve.limits import Limits


def test_every_limit_has_a_range_that_holds_its_usual_value() -> None:
    usual = dataclasses.asdict(Limits())
    assert usual.keys() == RANGES.keys()
    for name, (least, most) in RANGES.items():
        assert least <= usual[name] <= most, name
        assert least >= 0, name
        found = limits_of([f"{name}={least}", *([] if name != "seconds" else ["latency=0"])])
        assert getattr(found, name) == least
        assert type(getattr(found, name)) is type(usual[name])


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("header=1", "from 512 B to 1 MiB"),
        ("batch=1000000000", "from 1 to 4,096"),
        ("body=900000000MiB", "from 1 KiB to 1 GiB"),
        ("depth=5000", "from 8 to 512"),
        ("depth=7", "from 8 to 512"),
        ("queue=0", "from 1 to 65,536"),
        ("decoded=5GiB", "to 4 GiB"),
        ("connections=0", "from 1 to"),
        ("seconds=0", "from 0.05 s to 3600 s"),
        ("body_seconds=1ms", "from 0.05 s to 3600 s"),
        ("answer=0", "from 1 to"),
    ],
)
def test_limits_that_no_server_can_live_with(setting: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        limits_of([setting])
    name, _, value = setting.partition("=")
    assert caught.value.message.startswith(f"limit {name}: expected")
    assert repr(value) in caught.value.message
    assert caught.value.hint is not None
    assert hint in caught.value.hint


def test_nobody_waits_for_company_longer_than_for_an_answer() -> None:
    with pytest.raises(ConfigError, match="limit latency"):
        limits_of(["latency=10", "seconds=5"])


def test_a_helper_is_given_up_before_its_request_is() -> None:
    assert Limits().decode < Limits().seconds
    assert limits_of(["seconds=60"]).decode == 20
    assert limits_of(["seconds=60", "decode=5"]).decode == 5
    assert limits_of(["decode=5"]).decode == 5
