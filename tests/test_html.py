"""A page is one file, says what it was given, and runs nothing that it was given."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from neocog import html
from neocog.errors import RunError
from neocog.html import words
from neocog.records import Interval

VOID = {"meta", "img", "br", "hr", "input", "link", "use", "path", "image", "rect"}
PIXEL = html.data_uri(np.zeros((2, 2, 3), np.uint8))
EVERYTHING = html.Page(
    title="A page",
    subtitle="Everything that a page can hold",
    headline=html.Headline(
        number="98.3 %", words="of 360", ruler=(0.9, 0.98, 1.0), mark=(0.1, "chance")
    ),
    facts=(("Seed", "0"),),
    notes=(html.Note(text="mind this", kind="warning"),),
    sections=(
        html.Section(
            title="One",
            lead="lead",
            blocks=(
                html.Figure(svg="<svg><path d='M0 0'/></svg>", alt="a line", caption="caption"),
                html.Figure(image=PIXEL, alt="rows", rows=("first", "second"), crisp=True),
                html.Table(
                    caption="numbers",
                    columns=("Name", "Value"),
                    rows=(
                        (
                            html.Cell(text="a", colour="#00aa10"),
                            html.Cell(text="1", detail="0 to 2", order=1.0),
                        ),
                    )
                    * 3,
                    numeric=(1,),
                ),
            ),
        ),
        html.Section(
            title="Two",
            blocks=(
                html.Table(caption="folded", columns=("Name",), rows=(("b",),), folded=True),
                html.Pictures(
                    items=(html.Picture(image=PIXEL, alt="x", title="3", contrast="5"),),
                ),
                html.Strips(
                    items=(
                        html.Strip(
                            title="a strip",
                            detail="of two",
                            remark="side by side",
                            images=(PIXEL, PIXEL),
                            captions=("left", "right"),
                            alts=("black", "black too"),
                        ),
                    ),
                ),
                html.Key(items=(("#aa0010", "red"),)),
                html.Facts(items=(("n", "3"),)),
                html.Lines(items=("a line",)),
            ),
        ),
        html.Section(
            title="Two",
            blocks=(
                html.Code(text="run --again", caption="command"),
                html.Code(text="{}", caption="recipe", folded=True),
                html.Note(text="a note"),
            ),
        ),
    ),
    footer="made here",
)


class Reader(HTMLParser):
    """Collects tags, attributes and text; refuses tags that do not nest."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.text.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def addresses(reader: Reader) -> list[str]:
    """Everything in attributes that a browser could fetch."""
    names = ("src", "href", "xlink:href", "srcset", "data", "action", "poster", "background")
    return [attrs[name] or "" for _, attrs in reader.tags for name in names if name in attrs]


def assert_offline(text: str) -> None:
    reader = read(text)
    assert all(a.startswith(("#", "data:image/")) for a in addresses(reader))
    assert not re.search(r"url\((?!#)|@import|<link|<iframe|<object|<embed|<base", text)
    assert "://" not in re.sub(r"<(pre|bdi|td)\b.*?</\1>", "", text, flags=re.DOTALL)


def test_a_page_parses_and_reaches_for_nothing() -> None:
    text = html.render(EVERYTHING)
    assert text.startswith("<!doctype html>")
    assert_offline(text)
    seen = " ".join(" ".join(read(text).text).split())
    for word in (
        "A page",
        "98.3 %",
        "of 360",
        "mind this",
        "caption",
        "0 to 2",
        "run --again",
        "side by side",
        "red",
    ):
        assert word in seen


def test_every_fragment_has_its_target_once() -> None:
    reader = read(html.render(EVERYTHING))
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {a[1:] for a in addresses(reader) if a.startswith("#")} <= set(ids)


def test_it_can_be_read_without_eyes() -> None:
    reader = read(html.render(EVERYTHING))
    tags = [tag for tag, _ in reader.tags]
    assert tags.count("h1") == tags.count("main") == 1
    assert tags.count("h2") == len(EVERYTHING.sections)
    assert all(attrs.get("alt") for tag, attrs in reader.tags if tag == "img")
    assert all(attrs.get("scope") for tag, attrs in reader.tags if tag == "th")
    assert next(attrs for tag, attrs in reader.tags if tag == "html")["lang"] == "en"
    drawn = [attrs for _, attrs in reader.tags if attrs.get("role") == "img"]
    assert [attrs["aria-label"] for attrs in drawn] == ["a line"]


def test_the_policy_allows_the_one_script_by_its_hash() -> None:
    text = html.render(EVERYTHING)
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(a["content"] for _, a in read(text).tags if "http-equiv" in a)
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def _themes() -> dict[str, dict[str, str]]:
    """The page's colours: on a screen by light and by dark, and on paper."""
    style = (Path(html.__file__).parent / "page.css").read_text(encoding="utf-8")
    light, dark, paper = (
        dict(re.findall(r"--([a-z]+): (#[0-9a-f]{3,6});", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )
    assert set(light) == set(dark) == set(paper)
    return {"light": light, "dark": dark, "print": paper}


def _luminance(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb, as WCAG 2.2 defines it."""
    hexed = colour[1:] if len(colour) == 7 else "".join(2 * sign for sign in colour[1:])
    parts = [int(hexed[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_as_published() -> None:
    assert _contrast("#000", "#ffffff") == pytest.approx(21)
    assert _contrast("#767676", "#fff") == pytest.approx(4.54, abs=0.01)  # WebAIM's example


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_text_stands_out_from_what_is_behind_it(theme: str) -> None:
    """WCAG 2.2 AA: 4.5 for text, 3 for what must be seen besides, such as the focus."""
    colours = _themes()[theme]
    for text, behind in (
        *((text, back) for text in ("ink", "muted", "accent", "warm") for back in ("paper",)),
        *(("ink", back) for back in ("raised", "soft", "alert")),
        *(("muted", back) for back in ("raised", "soft")),
    ):
        assert _contrast(colours[text], colours[behind]) >= 4.5, (theme, text, behind)
    for sign in ("accent", "warm"):
        for behind in ("raised", "soft", "alert"):
            assert _contrast(colours[sign], colours[behind]) >= 3, (theme, sign, behind)


def test_one_can_come_by_keyboard_and_see_where_one_is() -> None:
    style = (Path(html.__file__).parent / "page.css").read_text(encoding="utf-8")
    assert re.search(r":focus-visible \{ outline: [2-9]px solid var\(--accent\)", style)
    reader = read(html.render(EVERYTHING))
    links = [attrs for tag, attrs in reader.tags if tag == "a"]
    assert links[0]["href"] == "#content"
    assert links[0]["class"] == "skip"
    regions = [attrs for _, attrs in reader.tags if attrs.get("role") == "region"]
    assert regions
    assert all(attrs["tabindex"] == "0" and attrs["aria-label"] for attrs in regions)


def test_equal_pages_give_equal_files(tmp_path: Path) -> None:
    assert html.render(EVERYTHING) == html.render(EVERYTHING)
    path = html.write(EVERYTHING, tmp_path / "page.html")
    assert path.read_text(encoding="utf-8") == html.render(EVERYTHING)
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot write"):
        html.write(EVERYTHING, tmp_path / "file" / "page.html")


@settings(deadline=None, max_examples=40)
@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_no_text_becomes_markup(text: str) -> None:
    hostile = f"<script>{text}</script><img src=x onerror=1>{text}\"'>"
    rows = ((hostile, html.Cell(text=hostile, detail=hostile)),)
    page = html.Page(
        title=hostile,
        facts=((hostile, hostile),),
        notes=(html.Note(text=hostile),),
        sections=(
            html.Section(
                title=hostile,
                lead=hostile,
                blocks=(
                    html.Table(caption=hostile, columns=(hostile, hostile), rows=rows),
                    html.Figure(image=PIXEL, alt=hostile, caption=hostile, rows=(hostile,)),
                    html.Pictures(
                        items=(
                            html.Picture(image=PIXEL, alt=hostile, title=hostile, source=hostile),
                        )
                    ),
                    html.Strips(
                        items=(
                            html.Strip(
                                title=hostile,
                                detail=hostile,
                                remark=hostile,
                                images=(PIXEL,),
                                captions=(hostile,),
                                alts=(hostile,),
                            ),
                        )
                    ),
                    html.Key(items=(("#000000", hostile),)),
                    html.Code(text=hostile, caption=hostile),
                    html.Lines(items=(hostile,)),
                ),
            ),
        ),
    )
    rendered = html.render(page)
    reader = read(rendered)
    assert [tag for tag, _ in reader.tags].count("script") == 1
    assert not any(name.startswith("on") for _, attrs in reader.tags for name in attrs)
    assert set(addresses(reader)) <= {"#content", PIXEL}
    rendered.encode("utf-8")  # lone surrogates of undecodable file names would break this


def test_what_cannot_be_seen_is_spelled_out() -> None:
    text = html.render(html.Page(title="photo\u202egnp.exe\x00\udcff"))
    assert r"photo\u202egnp.exe\x00\xff" in text


def test_templates_of_names_are_not_run() -> None:
    assert "{{ 7*7 }}" in html.render(html.Page(title="{{ 7*7 }}"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: html.Figure(alt="neither"),
        lambda: html.Figure(alt="both", svg="<svg/>", image=PIXEL),
        lambda: html.Figure(alt="script", svg="<svg><script>1</script></svg>"),
        lambda: html.Figure(alt="far", image="https://example.org/x.png"),
        lambda: html.Figure(alt="svg", image="data:image/svg+xml;base64,AAAA"),
        lambda: html.Picture(alt="far", title="x", image="x.png"),
        lambda: html.Table(caption="x", columns=("a", "b"), rows=(("only one",),)),
        lambda: html.Headline(number="1", words="x", ruler=(0.0, 0.5, 1.5)),
        lambda: html.Strip(title="far", images=("x.png",), captions=("",), alts=("x",)),
        lambda: html.Strip(title="alone", images=(PIXEL,), captions=("",), alts=()),
        lambda: html.Cell(text="x", colour="red"),
        lambda: html.Cell(text="x", colour="#12345"),
        lambda: html.Key(items=(("#123456;x:url(y)", "x"),)),
        lambda: html.png_uri(b"GIF89a"),
    ],
)
def test_nouns_refuse_what_a_page_cannot_hold(make: object) -> None:
    with pytest.raises(ValueError, match=r"expected|shows"):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (64, 64, 3)])
def test_small_pictures_survive_exactly(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    uri = html.data_uri(pixels)
    assert uri.startswith("data:image/png;base64,")
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    np.testing.assert_array_equal(back.reshape(shape), pixels)


def test_large_pictures_shrink() -> None:
    wide = np.random.default_rng(0).integers(0, 256, (300, 900, 3), np.uint8)
    uri = html.data_uri(wide, longest=90)
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size == (90, 30)
    assert len(uri) < 20_000


def test_a_large_drawing_stays_exact() -> None:
    drawing = np.zeros((200, 300, 3), np.uint8)
    drawing[50:150, 100:, 1] = 200
    uri = html.data_uri(drawing)
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    np.testing.assert_array_equal(back, drawing)


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2, 4), np.uint8), np.zeros((2, 2)), np.zeros((0, 2), np.uint8)]
)
def test_other_arrays_are_no_pictures(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        html.data_uri(pixels)


@settings(deadline=None)
@given(st.floats(0, 1))
def test_only_everything_is_100_percent(share: float) -> None:
    text = words.percent(share).removesuffix("\u00a0%")
    if 1e-8 < share < 1 - 1e-8:
        assert text not in ("0", "100")
        assert 0 < float(text) < 100
    assert float(text) == pytest.approx(100 * share, abs=0.0501)


def test_narrow_intervals_get_more_digits() -> None:
    narrow = Interval(value=0.99251, low=0.99062, high=0.99402, n=10000)
    assert words.percent_range(narrow) == ("99.25\u00a0%", "99.06", "99.40")


def test_a_picture_of_noise_can_be_shown() -> None:
    """It does not shrink, and Pillow's optimising JPEG writer has no room for it."""
    noise = np.random.default_rng(0).integers(0, 256, (330, 330, 3), dtype=np.uint8)
    assert html.data_uri(noise, longest=1600).startswith("data:image/jpeg")
