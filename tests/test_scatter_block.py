"""Pictures as points: a drawing without the script, one sheet of pictures, hostile names."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from neocog import html
from neocog.html.scatter import Scatter, Sprite, View, sprite


def pixels_of(one: Sprite) -> np.ndarray:
    data = base64.b64decode(one.image.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)))


def small(count: int = 5) -> Sprite:
    rng = np.random.default_rng(0)
    return sprite([rng.integers(0, 255, (6, 6, 3), dtype=np.uint8) for _ in range(count)])


def block(**more: object) -> Scatter:
    given: dict[str, object] = {
        "views": (
            View(name="here", places=((0, 0), (4, 0), (4, 2), (0, 2), (1, 1)), alt="a box"),
            View(name="there", places=((0, 0),) * 5, alt="one place", remark="all one"),
        ),
        "kinds": (0, 0, 2, 2, 2),
        "classes": ("cat", "none", "dog"),
        "colours": ("#112233", "#445566", "#778899"),
        "titles": ("a", "b", "c", "d", "e"),
        "sprite": small(),
    }
    return Scatter(**{**given, **more})  # type: ignore[arg-type]


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def page(*blocks: Scatter) -> str:
    return html.render(
        html.Page(title="Points", sections=(html.Section(title="One", blocks=blocks),))
    )


def test_points_lie_where_they_should() -> None:
    one = block()
    high, points = one.drawn(one.views[0])
    # 4 units in 1000 − 2 · 24 are 238 each; y points upwards.
    assert high == 2 * 238 + 2 * 24
    assert points == ((24, 500), (976, 500), (976, 24), (24, 24), (262, 262))
    _, still = one.drawn(one.views[1])
    assert set(still) == {(500, 500)}
    tall = View(name="", places=((0, 0), (0, 8), (1, 1), (0, 1), (0, 2)), alt="")
    high, points = block(views=(tall,)).drawn(tall)
    assert high == 1000
    assert max(y for _, y in points) == 976
    assert min(y for _, y in points) == 24
    assert one.key == ((0, "#112233", "cat", 2), (2, "#778899", "dog", 3))


def test_without_its_script_it_is_a_drawing_with_titles_and_a_key() -> None:
    text = page(block(marked=frozenset({1}), mark="answered wrongly"))
    tags = Tags(text).found
    circles = [attrs for tag, attrs in tags if tag == "circle"]
    assert len(circles) == 10
    assert [one["fill"] for one in circles[:5]] == ["#112233"] * 2 + ["#778899"] * 3
    assert [one.get("class") for one in circles[:3]] == [None, "m", None]
    assert re.findall(r"<title>(\w)</title></circle>", text) == list("abcde") * 2
    for word in ("cat", "dog", "answered wrongly", "all one", "here", "there"):
        assert word in text
    assert ">none<" not in text  # a class without points
    labels = [attrs["aria-label"] for tag, attrs in tags if tag == "svg"]
    assert labels == ["a box", "one place"]
    hidden = [attrs for tag, attrs in tags if attrs.get("class") in ("card", "how")]
    assert all("hidden" in attrs for attrs in hidden)
    assert len(hidden) == 2


def test_a_page_holds_all_pictures_once_and_no_address() -> None:
    text = page(block())
    assert text.count(small().image) == 1
    assert "://" not in text
    assert not re.search(r"url\((?!#)|@import", text)
    plain = html.render(html.Page(title="Points"))
    assert ".scatter" in text
    assert ".scatter" not in plain  # style and script come with the block alone


def test_hostile_names_stay_text() -> None:
    evil = "</title></svg><script>alert(1)</script>\u202e\" onload='x"
    text = page(
        block(
            classes=(evil, "n", evil),
            titles=(evil,) * 5,
            views=(View(name=evil, places=((0, 0),) * 5, alt=evil, remark=evil),),
            marked=frozenset({0}),
            mark=evil,
        )
    )
    assert "<script>alert" not in text
    assert "\u202e" not in text
    assert sum(tag == "script" for tag, _ in Tags(text).found) == 1
    assert not any("onload" in attrs for _, attrs in Tags(text).found)


def test_wrong_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="each of 4 points"):
        block(kinds=(0, 0, 2, 2))
    with pytest.raises(ValueError, match="each class"):
        block(kinds=(0, 0, 2, 2, 3))
    with pytest.raises(ValueError, match="#rrggbb"):
        block(colours=("red", "#445566", "#778899"))
    with pytest.raises(ValueError, match="finite"):
        block(views=(View(name="", places=((np.nan, 0),) * 5, alt=""),))
    with pytest.raises(ValueError, match="rims"):
        block(marked=frozenset({9}), mark="x")
    with pytest.raises(ValueError, match="another address"):
        Sprite(image="https://example.org/x.png", side=4, columns=1, count=1)


# -- the sheet ------------------------------------------------------------------------------------


def test_small_pictures_are_packed_as_they_are() -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (5, 7), dtype=np.uint8) for _ in range(6)]
    one = sprite(pictures)
    assert (one.side, one.columns, one.count) == (7, 3, 6)
    sheet = pixels_of(one)
    assert sheet.shape == (14, 21)
    for at, picture in enumerate(pictures):
        row, column = divmod(at, 3)
        np.testing.assert_array_equal(
            sheet[7 * row + 1 : 7 * row + 6, 7 * column : 7 * column + 7], picture
        )
    assert (sheet[0] == 128).all()


def test_large_pictures_are_shrunk() -> None:
    pictures = [np.full((40, 80, 3), 40 * at, np.uint8) for at in range(5)]
    one = sprite(pictures, side=16)
    sheet = pixels_of(one).astype(int)
    assert sheet.shape == (32, 48, 3)
    assert abs(sheet[4:12, 16:32] - 40).max() <= 2
    for wrong in ([], [np.zeros((2, 2))], [np.zeros((2, 2, 4), np.uint8)]):
        with pytest.raises(ValueError, match="expected"):
            sprite(wrong)


def test_a_thousand_photographs_take_half_a_megabyte() -> None:
    photograph = load_sample_image("china.jpg")
    rows, columns = (np.arange(1000) * 37 % 390, np.arange(1000) * 61 % 600)
    pictures = [photograph[r : r + 32, c : c + 32] for r, c in zip(rows, columns, strict=True)]
    one = sprite(pictures)
    assert len(one.image) < 500_000
    places = tuple((float(r), float(c)) for r, c in zip(rows, columns, strict=True))
    whole = page(
        Scatter(
            views=(View(name="Where", places=places, alt="places"),) * 2,
            kinds=tuple(at % 10 for at in range(1000)),
            classes=tuple("abcdefghij"),
            colours=("#123456",) * 10,
            titles=tuple(f"picture {at} of a class" for at in range(1000)),
            sprite=one,
        )
    )
    assert len(whole) < 900_000
