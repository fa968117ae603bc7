"""The report of a segmentation says what its masks say, and one of an unknown task is whole too."""

from __future__ import annotations

import base64
import io
import math
import re
from html import unescape
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from neocog import plots, report
from neocog.records import VOID, ClassRow, DataCount, Event, Interval, Scores
from neocog.run import headline
from neocog.verbs.console import epoch_line
from report_pages import headings, plain

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NAMES = ("road", "sky", "<b>car</b>")
COUNTS = np.array([[900_000, 60_000, 40_000], [0, 2_500_000, 0], [700, 290, 10]])


def interval(value: float, n: int = 101) -> Interval:
    return Interval(value=value, low=max(0.0, value - 0.02), high=min(1.0, value + 0.02), n=n)


def scores(counts: NDArray[np.int64] = COUNTS, **changes: Any) -> Scores:
    """By the definitions, from the counts alone."""
    rows = []
    for k, name in enumerate(NAMES):
        right, true, told = counts[k, k], counts[k].sum(), counts[:, k].sum()
        seen = true + told > 0
        rows.append(
            ClassRow(
                name=name,
                precision=interval(right / told) if told else None,
                recall=interval(right / true) if true else None,
                f1=interval(2 * right / (true + told)) if seen else None,
                n=int(true),
                jaccard=interval(right / (true + told - right)) if seen else None,
            )
        )
    known = [row.jaccard.value for row in rows if row.jaccard]
    plain = {
        "metrics": {
            "jaccard": interval(sum(known) / len(known)),
            "accuracy": interval(np.trace(counts) / counts.sum()),
            "boundary_f": interval(0.612),
            "loss": Interval(value=0.61, low=0.55, high=0.68, n=101),
        },
        "classes": tuple(rows),
        "confusion": tuple(map(tuple, counts.tolist())),
    }
    return Scores(**(plain | changes))


def segmented(seed: int = 0, **changes: Any) -> report.Segmented:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, (30, 40), np.uint8)
    truth[:3] = VOID
    plain = {
        "picture": rng.integers(0, 256, (30, 40, 3), np.uint8),
        "truth": truth,
        "answer": rng.integers(0, 3, (30, 40), np.uint8),
        "name": f"val/{seed}.png",
        "jaccard": 0.2,
    }
    return report.Segmented(**(plain | changes))


def manifest(task: str = "segment", **data: Any) -> dict[str, Any]:
    facts = {
        "source": "/pictures/streets",
        "size": [224, 288],
        "channels": 3,
        "classes": list(NAMES),
        "splits": {"train": 367, "val": 101},
        "class_counts": {"train": [3_000_000, 6_000_000, 1_000_000], "val": [0, 0, 0]},
    }
    return {
        "config": {},
        "seed": 7,
        "data": facts | data,
        "model": {"name": "unet", "args": {}, "parameters": 7_763_000},
        "task": {"name": task, "args": {}},
    }


def epochs(**values: float) -> list[Event]:
    shared = {"loss": 1.0, "val_loss": 1.1, "seconds": 2.0, "images_per_second": 9.0}
    return [
        Event(
            step=number,
            kind="epoch",
            values={"epoch": number, **shared, **{k: v * number for k, v in values.items()}},
            time=float(number),
        )
        for number in (1, 2)
    ]


def written(tmp_path: Path, **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "manifest": manifest(),
        "events": epochs(val_boundary_f=0.3, val_accuracy=0.4, val_jaccard=0.2265),
        "scores": {"val": scores()},
        "mistakes": (),
        "sheet": None,
        "faults": (),
        "counts": DataCount(found=468, used=468, skipped=0),
        "notes": (),
        "segmented": [segmented()],
    }
    path = report.write(tmp_path / "report.html", **(arguments | changes))
    return path.read_text(encoding="utf-8")


class Strips(HTMLParser):
    """The pictures of each strip: captions, alts and pixels; refuses tags that do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[dict[str, Any]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            found = dict(attrs)
            data = base64.b64decode((found["src"] or "").partition(",")[2])
            image = Image.open(io.BytesIO(data))
            self.pictures.append({"alt": found["alt"], "image": image, "caption": ""})
        elif tag not in ("meta", "path", "use", "image", "rect", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "use", "image", "rect"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "span" and self.pictures:
            self.pictures[-1]["caption"] += data


def test_a_whole_report(tmp_path: Path) -> None:
    page = written(tmp_path)
    text = plain(page)
    assert headings(page) == [
        "Scores",
        "How it learned",
        "How each class fares",
        "What is taken for what",
        "Worst pictures",
        "The data",
        "Run it again",
    ]
    # Jaccard: 900,000 / 1,000,700; 2.5 / 2.56029 million; 10 / 40,990.
    mean = 100 * (900_000 / 1_000_700 + 2_500_000 / 2_560_290 + 10 / 40_990) / 3
    accuracy = 100 * 3_400_010 / 3_501_000
    for line in (
        "Semantic segmentation, 3 classes, trained for 2 epochs in 4.0 s.",
        f"{mean:.1f} % mean Jaccard on 101 held-out pictures, 95 % interval",
        "Training crops 224 × 288, colour",
        f"pixel accuracy {accuracy:.1f} %",
        "boundary F 61.2 % 59.2 to 63.2",
        "loss 0.61",
        "Void pixels, which have no label, are never scored.",
        "Best mean Jaccard on held-out pictures: 45.3 %, after epoch 2.",
        "Lowest Jaccard: <b>car</b>, 0.02 %.",
        "Class Jaccard Recall Precision Dice Pixels",
        "Most often <b>car</b> is taken for road: 70.0 % of its pixels.",
        "Each number is the share of the row's pixels, in %.",
        "Largest class: sky, 60.0 %; smallest: <b>car</b>, 10.0 % of all pixels that have a label.",
    ):
        assert line in text, line
    assert "<b>car</b>" not in page
    assert "://" not in page
    assert "commonest class" not in text


def test_every_number_of_the_class_table(tmp_path: Path) -> None:
    """From the counts alone, against the text and the colours of the table."""
    page = written(tmp_path)
    (table,) = re.findall(r"<caption>Every class.*?</table>", page, flags=re.DOTALL)
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[2:]]
    assert len(rows) == 3
    for k, row in enumerate(rows):
        right, true, told = COUNTS[k, k], COUNTS[k].sum(), COUNTS[:, k].sum()
        assert plain(row[0]) == NAMES[k]
        (colour,) = re.findall(r"background:#([0-9a-f]{6})", row[0])
        assert tuple(bytes.fromhex(colour)) == tuple(plots.palette(3)[k].tolist())
        wanted = (
            right / (true + told - right),
            right / true,
            right / told,
            2 * right / (true + told),
            true / COUNTS.sum(),
        )
        for cell, share in zip(row[1:], wanted, strict=True):
            found = float(re.findall(r"[\d.]+", plain(cell))[0])
            assert found == pytest.approx(100 * share, abs=0.0501)


def test_a_class_that_never_occurs_is_a_dash(tmp_path: Path) -> None:
    counts = COUNTS.copy()
    counts[2], counts[:, 2] = 0, 0
    text = plain(written(tmp_path, scores={"val": scores(counts)}, segmented=()))
    assert "<b>car</b> – – – – 0 %" in text
    assert "1 class had no pixel in this part, so Jaccard is undefined (–)." in text


def test_confusions_are_shares_of_the_true_class(tmp_path: Path) -> None:
    page = written(tmp_path)
    (svg,) = re.findall(r'aria-label="Confusion matrix of 3 classes.">(.*?</svg>)', page, re.DOTALL)
    cells = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert [unescape(cell) for cell in cells if re.fullmatch(r"[\d.<>&;glt]+", cell)] == (
        ["90", "6.0", "4.0", "100", "70", "29", "1.0"]
    )
    (table,) = re.findall(r"Every confusion</caption>.*?</table>", page, flags=re.DOTALL)
    assert plain(table).endswith(
        "<b>car</b> road 700 70.0 % <b>car</b> sky 290 29.0 % "
        "road sky 60.0 thousand 6.0 % road <b>car</b> 40.0 thousand 4.0 %"
    )


def test_the_worst_pictures_go_first_with_their_masks(tmp_path: Path) -> None:
    worse, better = segmented(1, jaccard=0.131), segmented(2, jaccard=0.872, name="<i>2</i>")
    unknown = segmented(3, jaccard=math.nan)
    page = written(tmp_path, segmented=[better, unknown, worse])
    pictures = Strips(page).pictures
    captions = ["picture", "truth", "answer", "mistakes"]
    assert [one["caption"] for one in pictures] == 2 * captions
    for one, four in ((worse, pictures[:4]), (better, pictures[4:])):
        picture, truth, answer, mistakes = (found["image"] for found in four)
        np.testing.assert_array_equal(np.asarray(picture), one.picture)
        np.testing.assert_array_equal(np.asarray(truth), one.truth)
        np.testing.assert_array_equal(np.asarray(answer), one.answer)
        wrong = (one.truth != one.answer) & (one.truth != VOID)
        shown = np.asarray(mistakes).astype(int)
        np.testing.assert_array_equal(shown[..., 0] - shown[..., 2] > 50, wrong)
    share = 100 * wrong.sum() / (better.truth != VOID).sum()
    text = plain(page)
    assert f"<i>2</i> Jaccard 87.2 %; {share:.1f} % of labelled pixels are wrong" in text
    assert text.index("Jaccard 13.1 %") < text.index("Jaccard 87.2 %")
    assert f"Mistakes: {share:.1f}\u00a0% of labelled pixels are wrong." == pictures[7]["alt"]
    sizes = {NAMES[k]: (better.answer == k).mean() for k in range(3)}
    most = max(sizes, key=lambda name: sizes[name])
    assert pictures[6]["alt"].startswith(f"Answer: {most} {100 * sizes[most]:.1f}\u00a0%, ")
    assert "void 10.0" in pictures[5]["alt"]
    assert pictures[4]["alt"] == "Picture <i>2</i>."


def test_the_commonest_confusions_of_a_picture(tmp_path: Path) -> None:
    truth, answer = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
    truth[0], truth[1:5] = VOID, 1  # 10 void, 40 sky, 50 road
    answer[1:3], answer[3, :9], answer[9, :4] = 0, 2, 1
    answer[4] = 1
    one = segmented(truth=truth, answer=answer, picture=np.zeros((10, 10, 1), np.uint8))
    text = plain(written(tmp_path, segmented=[one]))
    # Of 90 with a label: 21 sky as road, 9 sky as car, 4 road as sky.
    assert "37.8 % of labelled pixels are wrong" in text
    assert "sky → road 23.3 %, sky → <b>car</b> 10.0 %, road → sky 4.4 %" in text


def test_a_perfect_answer_has_no_confusions(tmp_path: Path) -> None:
    one = segmented()
    text = plain(written(tmp_path, segmented=[segmented(answer=one.truth % VOID, jaccard=1.0)]))
    assert "Jaccard 100 %; 0 % of labelled pixels are wrong picture truth" in text


def test_pictures_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="of one size"):
        segmented(answer=np.zeros((30, 41), np.uint8))


def test_without_pictures_there_is_no_such_section(tmp_path: Path) -> None:
    for none in ((), [segmented(jaccard=math.nan)]):
        assert "Worst pictures" not in headings(written(tmp_path, segmented=none))


def test_twelve_photographs_stay_small_whatever_their_size(tmp_path: Path) -> None:
    """Of more pictures the twelve worst are shown; large ones are shrunk, masks to classes."""
    photos = [load_sample_image("china.jpg"), load_sample_image("flower.jpg")]
    many = []
    for number in range(14):
        picture = np.roll(photos[number % 2], 40 * number, axis=1)
        if number == 0:
            picture = np.repeat(np.repeat(picture, 2, axis=0), 2, axis=1)
        truth = (picture[..., 0] // 86).astype(np.uint8)
        answer = (picture[..., 2] // 86).astype(np.uint8)
        many.append(
            report.Segmented(
                picture=picture, truth=truth, answer=answer, name="x", jaccard=number / 20
            )
        )
    page = written(tmp_path, segmented=many)
    assert len(page) < 4_000_000
    pictures = Strips(page).pictures
    assert len(pictures) == 48
    for one in pictures:
        assert max(one["image"].size) == 480
    for one, mask in ((pictures[1], many[0].truth), (pictures[6], many[1].answer)):
        assert one["image"].mode == "P"
        small = np.asarray(one["image"])
        assert set(np.unique(small)) == set(np.unique(mask))
        shares = [(np.bincount(m.ravel(), minlength=3) / m.size) for m in (small, mask)]
        np.testing.assert_allclose(shares[0], shares[1], atol=0.01)


def test_the_key_names_only_what_is_seen(tmp_path: Path) -> None:
    truth = np.ones((8, 8), np.uint8)
    page = written(
        tmp_path, segmented=[segmented(truth=truth, answer=truth, picture=truth[..., None])]
    )
    (key,) = re.findall(r'<ul class="key wide">(.*?)</ul>', page, flags=re.DOTALL)
    assert plain(key) == "sky wrong"
    red, green, blue = plots.palette(2)[1].tolist()
    assert f"#{red:02x}{green:02x}{blue:02x}" in key


def test_a_task_that_nobody_entered_has_a_whole_page(tmp_path: Path) -> None:
    found = Scores(
        metrics={"wobble": Interval(value=3.25, low=3.0, high=3.5, n=40)},
        classes=tuple(
            ClassRow(name=name, precision=None, recall=interval(0.5, 20), f1=None, n=20)
            for name in NAMES
        ),
        confusion=((9, 1, 0), (2, 8, 0), (0, 0, 10)),
    )
    wrong = report.Mistake(
        picture=np.zeros((4, 4, 1), np.uint8), name="val/1.png", truth="a", answer="b"
    )
    page = written(
        tmp_path,
        manifest=manifest("juggle", class_counts={"train": [3, 2, 1]}),
        scores={"val": found},
        events=epochs(val_wobble=2.0),
        mistakes=[wrong],
        segmented=(),
    )
    text = plain(page)
    assert headings(page) == [
        *("Scores", "How it learned", "How each class fares", "What is taken for what"),
        *("Worst mistakes", "The data", "Run it again"),
    ]
    for line in (
        "Juggle, 3 classes, trained for 2 epochs",
        "3.25 wobble on 40 held-out pictures, 95 % interval 3 to 3.5",
        "Pictures 224 × 288, colour",
        "Best wobble on held-out pictures: 4, after epoch 2.",
        "Lowest recall: road, 50.0 % of 20 pictures.",
        "Most often sky is taken for road: 2 of 10 pictures.",
        "Largest class: road, 3; smallest: <b>car</b>, 1.",
    ):
        assert line in text, line
    assert "background:#" not in page.partition("</style>")[2]


def test_one_line_says_shares_in_percent() -> None:
    assert headline(scores(metrics={"jaccard": interval(0.453)})) == (
        "mean Jaccard 45.3 % (95 % interval 43.3 to 47.3 %, n = 101)"
    )
    assert headline(scores(metrics={"mae": interval(0.453)})) == (
        "mean absolute error 0.453 (95 % interval 0.433 to 0.473, n = 101)"
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"val_jaccard": 0.453, "val_accuracy": 0.8, "val_boundary_f": 0.5, "val_loss": 1},
         "val_loss 1.0000  val_jaccard 45.3 %  val_accuracy 80.0 %  "),
        ({"val_mae": 1.5, "val_rmse": 2.0, "val_r2": 0.5, "val_loss": 1},
         "val_loss 1.0000  val_mae 1.5000  val_r2 0.5000  "),
        ({"val_wobble": 3.25, "val_twist": 1.0, "val_loss": 1},
         "val_loss 1.0000  val_wobble 3.2500  "),
        ({}, ""),
    ],
)  # fmt: skip
def test_an_epoch_s_line_tells_the_scores_of_any_task(values: dict[str, float], said: str) -> None:
    line = epoch_line({"epoch": 1, "loss": 0.5, "images_per_second": 9.0} | values, 3, 60)
    assert line == f"epoch 1/3  loss 0.5000  {said}9 images/s  1:00 left"
