"""The page that explains answers, and the maps over its pictures."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from neocog import html
from neocog.plots.whymaps import AGAINST, FOR, enlarged, extent, hidden, why_overlay
from neocog.report.explained import Explained, Hiding, Scrambled, Sheet, Whole, WhyMap, page
from report_pages import headings, plain
from test_html import assert_offline, read
from test_tracer_block import small

DRAW = np.random.default_rng(0)
PICTURE = DRAW.integers(0, 256, (12, 14, 3), dtype=np.uint8)
SIGNED = DRAW.normal(size=(3, 12, 14))
HOSTILE = "<script>alert(1)</script>\u202e"


def explained(name: str = "cat.png") -> Explained:
    mask = np.zeros((12, 14), bool)
    mask[:6] = True
    return Explained(
        name=name,
        picture=PICTURE,
        answers=(("cat", 0.9), ("dog", 0.06)),
        truth="dog",
        maps=(
            WhyMap(name="integrated gradients", description="shares", values=SIGNED, gap=0.004),
            WhyMap(
                name="bad", description="off", values=np.abs(SIGNED[0]), gap=-0.2, note="beware"
            ),
            WhyMap(name="grad cam", description="where", values=np.ones((3, 4))),
        ),
        hiding=(Hiding(mask=mask, answer="owl", probability=0.5),),
        curves=(html.Figure(svg="<svg></svg>", alt="falls", caption="blur"),),
        features=(Sheet(pixels=PICTURE, alt="maps", caption="conv1"),),
        tracer=small(),
        remarks=("occlusion was left out",),
    )


WHOLE = Whole(
    name="a run",
    facts=(("Network", "cnn"),),
    scrambled=(
        Scrambled(method="one", layers=("fc", "conv"), similarity=(0.5, 0.1)),
        Scrambled(method="two", layers=("fc",), similarity=(0.987,)),
    ),
    remarks=("a remark",),
)


def test_the_page_says_what_it_was_given() -> None:
    text = html.render(page([explained()], WHOLE))
    assert_offline(text)
    seen = plain(text).replace("\u00a0", " ")
    assert headings(text) == [
        "The answer",
        "Why this answer",
        "What decides it",
        "Does it hold still",
        "What the layers see",
        "From a number to the pixels",
        "Can the maps be trusted",
    ]
    for words in (
        "Why cat?",
        "90.0 % sure that it is cat, but it is dog.",
        "The truth is dog, to which it gives 6.0 %.",
        "Adds up to the change of the answer, within 0.40 %.",
        "Misses the change of the answer by 20.00 %: read it with care. beware.",
        "50.0 % hidden, and the answer is owl (50.0 %).",
        "occlusion was left out",
        "speaks for cat",
        "speaks against it",
        "a remark",
    ):
        assert words in seen
    assert len(text) < 1_000_000


def test_several_pictures_stand_one_after_the_other() -> None:
    text = html.render(page([explained("a.png"), explained("b.png")], WHOLE))
    found = headings(text)
    assert found == ["a.png: cat", "b.png: cat", "Can the maps be trusted"]
    inner = re.findall(r"<h3 id=[^>]*>(.*?)</h3>", text)
    assert inner == 2 * [
        *("Why this answer", "What decides it", "Does it hold still"),
        *("What the layers see", "From a number to the pixels"),
    ]
    contents = re.search(r"<nav.*?</nav>", text, re.DOTALL)
    assert contents is not None
    assert contents[0].count("<li>") == 3
    assert text.count("data-tracer>") == 2
    ids = [attrs["id"] for _, attrs in read(text).tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_what_is_missing_is_left_out() -> None:
    bare = Explained(name="x", picture=PICTURE[:, :, :1], answers=(("cat", 1.0),))
    text = html.render(page([bare], Whole(name="net")))
    assert headings(text) == ["The answer"]
    assert "100\u00a0%" in text
    with pytest.raises(ValueError, match="expected pictures"):
        page([], WHOLE)
    with pytest.raises(ValueError, match="expected pictures"):
        page([replace(bare, answers=())], WHOLE)


def test_names_are_no_markup() -> None:
    one = replace(explained(HOSTILE), answers=((HOSTILE, 0.9),), truth=HOSTILE, target=HOSTILE)
    text = html.render(page([one], replace(WHOLE, name=HOSTILE)))
    scripts = [attrs for tag, attrs in read(text).tags if tag == "script"]
    assert scripts == [{"type": "application/json"}, {}]
    assert "\u202e" not in text


def test_layers_that_a_method_has_no_number_for_are_dashes() -> None:
    text = html.render(page([explained()], WHOLE))
    table = text[text.index("Scrambled down to") :]
    rows = [plain(row) for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)[:2]]
    assert rows == ["fc 0.5 0.99", "conv 0.1 –"]


def pixels(text: str, alt: str) -> np.ndarray:
    """The picture of the page with this alternative text."""
    image = next(a for tag, a in read(text).tags if tag == "img" and (a["alt"] or "") == alt)
    data = base64.b64decode((image["src"] or "").partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_the_overlays_of_the_page_are_those_of_its_maps() -> None:
    text = html.render(page([explained()], WHOLE))
    alt = "cat.png in grey, coloured where integrated gradients finds what counted for cat"
    found = pixels(text, alt).astype(int)
    times = found.shape[0] // 12
    expected = why_overlay(PICTURE, SIGNED).astype(int)
    middle = found[times // 2 :: times, times // 2 :: times]
    assert np.abs(middle - expected).max() < 12  # a JPEG where that is smaller


def test_colours_tell_sign_and_size() -> None:
    values = np.linspace(-1, 1, 41)[None].repeat(8, 0)
    grey = np.full((8, 41, 1), 128, np.uint8)
    shown = why_overlay(grey, values, most=1.0)[0].astype(int)
    none = shown[20]
    assert len(set(none.tolist())) == 1
    distance = np.abs(shown - none).sum(1)
    assert (np.diff(distance[:21]) <= 0).all()
    assert (np.diff(distance[20:]) >= 0).all()
    for end, colour in ((shown[40], FOR), (shown[0], AGAINST)):
        rest = end - np.array(colour)
        assert np.abs(rest).max() <= 0.13 * np.abs(none - np.array(colour)).max() + 1


def _of_linear(rgb: np.ndarray) -> np.ndarray:
    """Linear light → OKLab (Ottosson 2020)."""
    lms = np.cbrt(
        rgb
        @ np.array(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ]
        ).T
    )
    lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return lms @ lab.T


# Machado, Oliveira and Fernandes (2009), severity 1, on linear light.
BLINDNESS = {
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


@pytest.mark.parametrize("kind", ["none", *BLINDNESS])
def test_for_and_against_stay_apart_for_every_eye(kind: str) -> None:
    def seen(colour: tuple[int, int, int]) -> np.ndarray:
        rgb = np.array(colour) / 255
        rgb = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        matrix = np.eye(3) if kind == "none" else np.array(BLINDNESS[kind])
        return _of_linear(np.clip(matrix @ rgb, 0, 1))

    # 0.02 is about the least difference that is seen; neighbours of a palette are some 0.1 apart.
    assert np.linalg.norm(seen(FOR) - seen(AGAINST)) > 0.15


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]), st.floats(1e-30, 1e30))
def test_any_map_fits_any_picture(high: int, wide: int, channels: int, size: float) -> None:
    picture = np.full((7, 5, channels), 90, np.uint8)
    values = np.full((2, high, wide), -size)
    shown = why_overlay(picture, values)
    assert shown.shape == (7, 5, 3)
    assert shown.dtype == np.uint8
    # All of the map is its largest: one colour all over.
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) <= 2


def test_a_map_of_nothing_leaves_the_picture_grey() -> None:
    shown = why_overlay(PICTURE, np.zeros((12, 14)))
    assert (shown[:, :, 0] == shown[:, :, 1]).all()
    assert extent(np.zeros((2, 2))) == 0
    assert extent(np.array([[0, -3.0]])) > 2.9


def test_one_bright_pixel_does_not_make_the_rest_pale() -> None:
    values = np.full((100, 100), 1.0)
    values[0, 0] = 1e6
    assert extent(values) == 1.0


def test_what_is_hidden_cannot_be_seen() -> None:
    mask = np.zeros((12, 14), bool)
    mask[3:9, 2:7] = True
    shown = hidden(PICTURE, mask)
    np.testing.assert_array_equal(shown[~mask], PICTURE[~mask])
    assert set(shown[mask].ravel().tolist()) == {70, 226}
    grey = hidden(PICTURE[:, :, 0], mask)
    assert grey.shape == (12, 14, 3)
    assert enlarged(mask, 24).sum() == 4 * mask.sum()


@pytest.mark.parametrize(
    "values", [np.ones(3), np.ones((1, 1, 1, 1)), np.ones((0, 3)), np.array([[np.nan]])]
)
def test_other_arrays_are_no_maps(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected a map"):
        why_overlay(PICTURE, values)
    with pytest.raises(ValueError, match="expected"):
        why_overlay(PICTURE.astype(float), np.ones((2, 2)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a mask"):
        hidden(PICTURE, np.ones((2, 2), bool))
