"""Figures show the numbers they were given, the same way every time, and touch nothing else."""

import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from neocog import plots


def confused(n: int, seed: int = 0) -> list[list[int]]:
    counts = np.random.default_rng(seed).integers(0, 4, (n, n)) + 20 * np.eye(n, dtype=int)
    return [[int(value) for value in row] for row in counts]


def names(n: int) -> list[str]:
    return [f"class {i}" for i in range(n)]


BINS = [
    plots.Bin(confidence=0.55, accuracy=0.5, low=0.3, high=0.7, n=20, edges=(0.5, 0.6)),
    plots.Bin(confidence=0.97, accuracy=0.98, low=0.95, high=0.99, n=400, edges=(0.9, 1.0)),
]
LINES = [
    plots.Line(name="held out", x=[1, 2, 3], y=[1.0, 0.5, 0.4]),
    plots.Line(name="training", x=[1, 2, 3], y=[0.9, 0.45, 0.39], role="second"),
]
RATE = plots.Line(name="learning rate", x=[0, 1.5, 3], y=[0.0, 0.003, 0.0])
FIGURES = {
    "curves": lambda: plots.curves(LINES, title="Loss", rate=RATE, best=(3, 0.4)),
    "log": lambda: plots.curves(LINES, title="Loss", log=True),
    "percent": lambda: plots.curves(LINES[:1], title="Accuracy", percent=True),
    "one epoch": lambda: plots.curves([plots.Line(name="a", x=[1], y=[0.5])], title="Loss"),
    "constant": lambda: plots.curves([plots.Line(name="a", x=[1, 2], y=[0, 0])], title="Loss"),
    "confusion 2": lambda: plots.confusion([[9, 1], [2, 8]], ["no", "yes"]),
    "confusion 10": lambda: plots.confusion(confused(10), names(10)),
    "confusion 30": lambda: plots.confusion(confused(30), names(30)),
    "confusion 120": lambda: plots.confusion(confused(120), names(120)),
    "shares 4": lambda: plots.confusion(confused(4), names(4), shares=True),
    "shares 30": lambda: plots.confusion(confused(30), names(30), shares=True),
    "pairs": lambda: plots.pairs(confused(30), names(30)),
    "pairs of shares": lambda: plots.pairs(confused(30), names(30), shares=True),
    "reliability": lambda: plots.reliability(BINS),
    "whiskers": lambda: plots.whiskers(
        [plots.Whisker(name="a", value=0.9, low=0.8, high=0.95, note="9 of 10")],
        title="Recall",
        line=(0.9, "mean"),
    ),
    "balance": lambda: plots.balance(["a", "b"], {"train": [5, 6], "val": [1, 2]}),
    "balance 60": lambda: plots.balance(names(60), {"train": list(range(60))}),
    "pixels 60": lambda: plots.balance(names(60), {"train": list(range(60))}, unit="pixel"),
    "scatter": lambda: plots.scatter([1, 2, 3], [1.1, 2.2, 2.7]),
    "crowd": lambda: plots.scatter(np.arange(2000.0), np.arange(2000.0) + 1),
    "residuals": lambda: plots.residuals([1, 2, 3], [1.1, 2.2, 2.7]),
    "sheet": lambda: plots.contact_sheet(np.zeros((16, 32, 3), np.uint8), ("original", "epoch 1")),
}


def words(svg: str) -> list[str]:
    """What is written in a figure. Parsing proves that the fragment is well-formed."""
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("text")]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_clean_fragment(name: str) -> None:
    before = dict(matplotlib.rcParams)
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    svg = plots.svg(figure)
    assert svg.startswith("<svg ")
    assert svg.endswith("</svg>")
    assert words(svg) or name == "sheet"
    ids = re.findall(r'\sid="([^"]+)"', svg)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) <= set(ids)
    # Not an address, not even of a name space; nothing that leaks into the page around it.
    assert "://" not in svg
    assert "<style" not in svg
    assert "<metadata" not in svg
    assert all(uri.startswith("data:image/png") for uri in re.findall(r'href="([^#][^"]*)', svg))
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", ["curves", "confusion 10", "confusion 30", "crowd", "balance"])
def test_equal_figures_give_equal_bytes(name: str) -> None:
    assert plots.svg(FIGURES[name]()) == plots.svg(FIGURES[name]())


def test_the_reader_s_own_style_does_not_matter() -> None:
    plain = plots.svg(FIGURES["curves"]())
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "lines.linewidth": 9}):
        assert plots.svg(FIGURES["curves"]()) == plain


def test_no_pyplot_and_no_matplotlib_before_it_is_needed() -> None:
    code = (
        "import sys, neocog.plots as p\n"
        "assert 'matplotlib' not in sys.modules\n"
        "p.svg(p.pairs([[1, 2], [3, 4]], ['a', 'b']))\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_colours_follow_the_page() -> None:
    svg = plots.svg(FIGURES["curves"]())
    assert "var(--accent,#0a67a6)" in svg
    assert "var(--ink,#1d2126)" in svg
    assert not re.search(r"(?<!,)#(0a67a6|b8500a|1d2126|5b626b|d8dad5)", svg)


def test_hues_stay_apart_and_readable() -> None:
    """Contrast by WCAG 2: text 4.5 to 1 on its paper, and the hues differ in every kind of eye."""

    def light(color: str) -> float:
        rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(one: str, other: str) -> float:
        a, b = sorted((light(one), light(other)))
        return (b + 0.05) / (a + 0.05)

    for paper, ink, muted, accent, warm in (
        ("#fdfdfb", "#1d2126", "#5b626b", "#0a67a6", "#b8500a"),
        ("#15171a", "#e6e7e4", "#a0a7af", "#6fb4ee", "#f2a266"),
    ):
        assert min(contrast(paper, c) for c in (ink, muted, accent, warm)) >= 4.5
        # Red-green blindness leaves blue against yellow: the hues differ most in that channel.
        blue = [int(c[5:7], 16) - int(c[3:5], 16) for c in (accent, warm)]
        assert blue[0] > 50
        assert blue[1] < -50


def test_names_are_text_not_mathematics_and_not_markup() -> None:
    hostile = ["<script>x</script>", "$\\frac{1}{2}$", "a\x00\u202eb\udcff", "猫"]
    svg = plots.svg(plots.confusion(confused(4), hostile))
    written = words(svg)
    assert written.count("$\\frac{1}{2}$") == 2
    assert written.count("<script>x</script>") == 2
    assert written.count("a\\x00\\u202eb\\xff") == 2
    assert "<script" not in svg
    svg.encode("utf-8")


def test_a_small_confusion_matrix_writes_every_count() -> None:
    counts = [[90, 7, 3], [0, 81, 0], [11, 0, 42]]
    written = words(plots.svg(plots.confusion(counts, ["a", "b", "c"])))
    for row in counts:
        for count in row:
            if count:
                assert str(count) in written
    assert "0" not in written


def test_cells_are_shaded_by_share_of_the_row() -> None:
    svg = plots.svg(plots.confusion([[3, 1], [0, 1000]], ["a", "b"]))
    shades = [float(s) for s in re.findall(r"opacity: ([\d.]+)", svg)]
    assert {round(0.95 * 0.75, 2), round(0.95 * 0.25**0.5, 2), 0.95} <= {
        round(s, 2) for s in shades
    }


def test_a_map_of_many_classes_stays_small() -> None:
    dense = [[1] * 200 for _ in range(200)]
    svg = plots.svg(plots.confusion(dense, names(200)))
    assert svg.count("<image") == 1
    assert len(svg) < 40_000


def test_pairs_name_the_confusions_in_order() -> None:
    counts = [[50, 9, 0], [4, 40, 1], [0, 0, 9]]
    assert plots.confused_pairs(counts) == [(0, 1, 9), (1, 0, 4), (1, 2, 1)]
    written = words(plots.svg(plots.pairs(counts, ["ant", "bee", "fly"], top=2)))
    assert "ant → bee" in written
    assert "9 of 59" in written
    assert "bee → fly" not in written


def test_shares_are_of_the_true_class_and_a_rare_one_is_heard() -> None:
    counts = [[900_000, 60_000, 0], [200, 99_700, 100], [35, 5, 10]]
    written = words(plots.svg(plots.confusion(counts, ["ant", "bee", "fly"], shares=True)))
    cells = [text for text in written if re.fullmatch(r"[<>\d.]+", text)]
    assert cells == ["94", "6.2", "0.2", ">99", "0.1", "70", "10", "20"]
    order = [(2, 0, 35), (2, 1, 5), (0, 1, 60_000), (1, 0, 200), (1, 2, 100)]
    assert plots.confused_pairs(counts, shares=True) == order
    bars = words(plots.svg(plots.pairs(counts, ["ant", "bee", "fly"], top=3, shares=True)))
    assert {"fly → ant", "70 %", "ant → bee", "6.2 %"} <= set(bars)
    assert "bee → ant" not in bars


def test_of_pixels_the_share_of_all_is_written() -> None:
    counts = {"train": [6_000_000, 2_999_000, 1000, 0], "val": [1_000_000, 0, 0, 0]}
    written = words(plots.svg(plots.balance(["a", "b", "c", "d"], counts, unit="pixel")))
    assert {"Pixels a class", "70 %", "30 %", "<0.1 %", "0 %"} <= set(written)


def test_whiskers_are_sorted_lowest_first() -> None:
    rows = [
        plots.Whisker(name=name, value=value, low=value - 0.1, high=min(value + 0.1, 1))
        for name, value in (("good", 0.95), ("bad", 0.3), ("fair", 0.7))
    ]
    figure = plots.whiskers(rows, title="Recall")
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels == ["bad", "fair", "good"]
    assert figure.axes[0].get_xlim()[0] <= 0.2


def test_curves_write_their_last_values() -> None:
    written = words(plots.svg(plots.curves(LINES, title="Loss")))
    assert {"held out", "0.4", "training", "0.39", "Loss"} <= set(written)


def test_lines_that_end_together_are_told_apart() -> None:
    figure = plots.curves(LINES, title="Loss")
    places = sorted(text.xy[1] for text in figure.axes[0].texts)
    assert places[1] - places[0] >= 0.169


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.curves([], title="x"),
        lambda: plots.curves([plots.Line(name="x", x=[], y=[])], title="x"),
        lambda: plots.confusion([[1, 2]], ["a"]),
        lambda: plots.pairs([[1, 0], [0, 1]], ["a", "b"]),
        lambda: plots.reliability([]),
        lambda: plots.whiskers([], title="x"),
        lambda: plots.balance(["a"], {"train": [1, 2]}),
        lambda: plots.scatter([1, 2], [1]),
        lambda: plots.contact_sheet(np.zeros((2, 2))),
    ],
)
def test_nothing_to_draw_is_refused(draw: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        draw()  # type: ignore[operator]
