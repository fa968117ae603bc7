"""The report says what the scores say, and nothing where there is nothing."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from neocog import html, report
from neocog.metrics import wilson
from neocog.records import ClassRow, DataCount, Event, Fault, Interval, Scores
from report_pages import headings, plain

CONFUSION = ((176, 3, 1), (2, 97, 1), (0, 0, 80))
NAMES = ("cat", "dog", "owl")


def scores(confusion: tuple[tuple[int, ...], ...] = CONFUSION, **changes: Any) -> Scores:
    table = np.array(confusion)
    n, hits = int(table.sum()), int(np.trace(table))
    rows = []
    for index, name in enumerate(NAMES):
        right, true, told = (
            int(table[index, index]),
            int(table[index].sum()),
            int(table[:, index].sum()),
        )
        f1 = 2 * right / (true + told) if true + told else None
        rows.append(
            ClassRow(
                name=name,
                precision=wilson(right, told) if told else None,
                recall=wilson(right, true) if true else None,
                f1=None
                if f1 is None
                else Interval(value=f1, low=max(f1 - 0.03, 0), high=min(f1 + 0.02, 1), n=n),
                n=true,
            )
        )
    parts: dict[str, Any] = {
        "metrics": {
            "accuracy": wilson(hits, n),
            "loss": Interval(value=0.0712, low=0.05, high=0.09, n=n),
        },
        "classes": tuple(rows),
        "confusion": confusion,
        "calibration": {
            "ece": {"value": 0.0123, "low": 0.004, "high": 0.021, "n": n},
            "bins": [
                {"low": 0.0, "high": 0.5, "n": 0, "confidence": None, "accuracy": None},
                {"low": 0.5, "high": 1.0, "n": n, "hits": hits, "confidence": 0.97}
                | {"accuracy": hits / n},
            ],
        },
    }
    return Scores(**(parts | changes))


def epochs(count: int = 3) -> list[Event]:
    events = []
    for epoch in range(1, count + 1):
        events += [
            Event(step=10 * epoch - 5, kind="step", values={"loss": 1.0, "lr": 0.01}, time=epoch),
            Event(
                step=10 * epoch,
                kind="epoch",
                values={
                    "epoch": epoch,
                    "loss": 1 / epoch,
                    "val_loss": 1.1 / epoch,
                    "val_accuracy": 1 - 0.3 / epoch,
                    "lr": 0.01,
                    "seconds": 2.0,
                    "images_per_second": 500.0,
                },
                time=epoch,
            ),
        ]
    return [*events, Event(step=30, kind="end", values={"reason": "all epochs done"}, time=9.0)]


def manifest(**changes: Any) -> dict[str, Any]:
    data = {
        "source": "/pictures/pets",
        "fingerprint": "3f7c0a1b",
        "size": [32, 32],
        "channels": 3,
        "classes": list(NAMES),
        "splits": {"train": 3240, "val": 360},
        "class_counts": {"train": [1620, 900, 720], "val": [180, 100, 80]},
        "duplicates": {"train/val": 0},
    }
    plain = {
        "config": {"seed": 7, "engine": {"epochs": 3}},
        "seed": 7,
        "versions": {"neocog": "0.1.0", "torch": "2.13.0"},
        "argv": ["neocog", "train", "/pictures/my pets"],
        "device": {"kind": "cpu", "name": "a processor", "threads": 2},
        "data": data | changes.pop("data", {}),
        "model": {"name": "cnn", "args": {"width": 32}, "parameters": 123456},
        "task": {"name": "classify", "args": {}},
    }
    return plain | changes


def mistake(**changes: Any) -> report.Mistake:
    picture = (load_digits().images[7] * 15.9).astype(np.uint8)[:, :, None]
    plain = {"picture": picture, "name": "val/7.png", "truth": "cat", "answer": "dog"}
    return report.Mistake(**(plain | {"confidence": 0.993, "probability": 0.002} | changes))


def written(tmp_path: Path, **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "manifest": manifest(),
        "events": epochs(),
        "scores": {"val": scores()},
        "mistakes": [mistake()],
        "sheet": np.zeros((64, 128, 3), np.uint8),
        "faults": (),
        "counts": DataCount(found=3600, used=3600, skipped=0),
        "notes": ("not flipped: as set",),
    }
    path = report.write(tmp_path / "report.html", **(arguments | changes))
    return path.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the time goes into drawing; tests that look at words do without."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("neocog.plots.svg", lambda figure: "<svg></svg>")


@pytest.fixture
def drawn() -> None:
    """Draw the figures in this test."""


ALL = [
    "Scores",
    "How it learned",
    "How each class fares",
    "What is taken for what",
    "How far to trust its confidence",
    "Worst mistakes",
    "What the network saw",
    "The data",
    "Run it again",
]


@pytest.mark.usefixtures("drawn")
def test_a_whole_report(tmp_path: Path) -> None:
    page = written(tmp_path)
    text = plain(page)
    assert headings(page) == ALL
    for line in (
        "cnn on pets",
        "Image classification, 3 classes, trained for 3 epochs in 6.0 s.",
        "98.1 % of 360 held-out pictures, 95 % interval 96.0 to 99.1",
        "50.0 %: always answering the commonest class",
        "Network cnn (width 32) Parameters 123 thousand Pictures 32 × 32, colour",
        "Training part 3,240 Validation part 360 Speed 500 pictures/s",
        "Machine a processor, 2 threads Seed 7",
        "Best accuracy on held-out pictures: 90.0 %, after epoch 3.",
        "The run ended: all epochs done.",
        "Lowest recall: dog, 97.0 % of 100 pictures.",
        "Most often cat is taken for dog: 3 of 180 pictures.",
        "Confidence and accuracy differ by 1.2 % on average (95 % interval 0.4 to 2.1)",
        "cat → taken for dog 99.3 % sure, truth 0.2 % val/7.png",
        "Not flipped: as set.",
        "3,600 samples found, 3,600 used, 0 skipped. No picture occurs in two parts.",
        "Largest class: cat, 1,800; smallest: owl, 800.",
        "neocog train --config manifest.json",
        "neocog train '/pictures/my pets'",
        "torch 2.13.0",
        '"epochs": 3',
    ):
        assert line in text, line
    assert len(page) < 200_000


@pytest.mark.usefixtures("drawn")
def test_the_page_opens_offline(tmp_path: Path) -> None:
    page = written(tmp_path)
    assert "://" not in page
    addresses = re.findall(r'\s(?:src|href)="([^"]*)"', page)
    assert addresses
    assert all(a.startswith(("#", "data:image/")) for a in addresses)


def test_every_number_of_the_class_table_is_the_score_s(tmp_path: Path) -> None:
    """The arithmetic, from the confusion matrix alone, against the text of the table."""
    page = written(tmp_path)
    (table,) = re.findall(r"<caption>Every class.*?</table>", page, flags=re.DOTALL)
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[2:]]
    counts = np.array(CONFUSION)
    for index, row in enumerate(rows):
        name, recall, precision, f1, n = (plain(cell) for cell in row)
        right, true, told = counts[index, index], counts[index].sum(), counts[:, index].sum()
        assert name == NAMES[index]
        assert int(n) == true
        for cell, share in (
            (recall, right / true),
            (precision, right / told),
            (f1, 2 * right / (true + told)),
        ):
            found = [float(number) for number in re.findall(r"[\d.]+", cell)]
            assert found[0] == pytest.approx(100 * share, abs=0.0501)
            assert found[1] <= found[0] <= found[2]
        z = 1.959963984540054
        share = right / true
        centre = (share + z * z / (2 * true)) / (1 + z * z / true)
        half = z / (1 + z * z / true) * (share * (1 - share) / true + (z / (2 * true)) ** 2) ** 0.5
        ends = [float(number) for number in re.findall(r"[\d.]+", recall)][1:]
        assert ends == pytest.approx([100 * (centre - half), 100 * (centre + half)], abs=0.0501)


def test_the_test_part_goes_before_the_validation_part(tmp_path: Path) -> None:
    page = written(tmp_path, scores={"val": scores(), "test": scores(((9, 0, 0),) * 3)})
    text = plain(page)
    assert "33.3 % of 27 test pictures" in text
    assert "98.1 % 96.0 to 99.1" in text
    assert "There is no test part" not in text


def test_undefined_is_a_dash_never_a_zero(tmp_path: Path) -> None:
    text = plain(written(tmp_path, scores={"val": scores(((10, 0, 0), (2, 8, 0), (0, 0, 0)))}))
    assert "owl – – – 0" in text
    assert "1 class had no picture in this part, so recall is undefined (–)." in text


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"events": ()}, "How it learned"),
        ({"mistakes": ()}, "Worst mistakes"),
        ({"sheet": None, "notes": ()}, "What the network saw"),
        ({"scores": {"val": scores(calibration={})}}, "How far to trust its confidence"),
        ({"scores": {"val": scores(classes=())}}, "How each class fares"),
    ],
)
def test_a_section_without_content_is_left_out(
    tmp_path: Path, changes: Mapping[str, Any], gone: str
) -> None:
    assert gone not in headings(written(tmp_path, **changes))


def test_without_scores_the_page_says_why(tmp_path: Path) -> None:
    page = written(tmp_path, scores={}, mistakes=(), events=epochs())
    assert headings(page) == ["How it learned", "What the network saw", "The data", "Run it again"]
    assert "Nothing was held back from training, so there is no score." in plain(page)
    assert 'class="big"' not in page


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "which this run did not train on."),
        ({"stop": {"patience": None}}, "which this run did not train on."),
        ({"stop": {"patience": 3}}, "decided when to stop and which weights to keep, so it is"),
        ({"plateau": {"patience": 3}}, "decided when to lower the learning rate, so it is"),
    ],
)
def test_a_number_that_chose_itself_is_called_so(
    tmp_path: Path, config: Mapping[str, Any], said: str
) -> None:
    assert said in plain(written(tmp_path, manifest=manifest(config=config)))


def test_what_is_wrong_with_the_data_is_told(tmp_path: Path) -> None:
    short = {"format": "jpeg", "code": "truncated", "reason": "short", "offset": 9}
    faults = [Fault(path=f"cat/{i:03}.jpg", policy="skip", **short) for i in range(60)]
    faults += [Fault(path="x", format="folder", code="stray", reason="no picture", policy="accept")]
    data = {"duplicates": {"train/val": 2}, "splits": {"train": 3, "val": 2}}
    page = written(
        tmp_path,
        faults=faults,
        manifest=manifest(data=data),
        counts=DataCount(found=3600, used=3541, skipped=60),
    )
    text = plain(page)
    assert "truncated left out 60 short stray kept 1 no picture" in text
    assert "The first 50 of 61 faults" in text
    assert "cat/049.jpg @ 9" in text
    assert "cat/050.jpg" not in text
    assert "The count does not close: 3,600 found, 3,541 used, 60 skipped." in text
    assert (
        "2 pictures of the validation part also occur in the training part: the validation score "
        "may be too good." in text
    )


@pytest.mark.parametrize(
    "ece",
    [
        Interval(value=0.0123, low=0.004, high=0.021, n=360),
        {"value": 0.0123, "low": 0.004, "high": 0.021, "n": 360},
        {"value": 0.0123},
        0.0123,
    ],
)
def test_calibration_may_be_told_in_any_way(tmp_path: Path, ece: Any) -> None:
    text = plain(written(tmp_path, scores={"val": scores(calibration={"ece": ece})}))
    assert "Confidence and accuracy differ by 1.2" in text


@pytest.mark.usefixtures("drawn")
def test_regression(tmp_path: Path) -> None:
    found = Scores(
        metrics={
            "mae": Interval(value=2.31, low=2.2, high=2.4, n=360),
            "rmse": Interval(value=3.05, low=2.9, high=3.2, n=360),
            "r2": Interval(value=-0.12, low=-0.2, high=0.01, n=360),
        }
    )
    truth = np.arange(30.0)
    page = written(
        tmp_path,
        scores={"test": found},
        manifest=manifest(task={"name": "regress"}, data={"class_counts": {}, "classes": ["age"]}),
        mistakes=[mistake(truth="3.2", answer="51", confidence=None, probability=None)],
        answers={"age": (truth, truth + 1)},
    )
    text = plain(page)
    assert "2.31 mean absolute error on 360 test pictures, 95 % interval 2.2 to 2.4" in text
    assert "R² −0.12 −0.2 to 0.01" in text
    assert "Answers and truths" in headings(page)
    assert "What is taken for what" not in headings(page)
    assert "sure" not in text.partition("Worst mistakes Truth")[2].partition("What the")[0]


@pytest.mark.usefixtures("drawn")
def test_regression_of_several_columns(tmp_path: Path) -> None:
    """The headline has no unit; errors are told by column."""
    numbers = {"r2": 0.5, "mae:age": 2.0, "mae:height": 0.07, "r2:age": 0.4, "r2:height": 0.6}
    found = Scores(
        metrics={
            name: Interval(value=value, low=value - 0.05, high=value + 0.05, n=360)
            for name, value in numbers.items()
        }
    )
    told = [
        Event(
            step=number,
            kind="epoch",
            values={"epoch": number, "loss": 1.0, "val_loss": 1.0, "seconds": 1.0}
            | {f"val_{name}": value * number / 2 for name, value in numbers.items()},
            time=float(number),
        )
        for number in (1, 2)
    ]
    page = written(
        tmp_path,
        scores={"test": found},
        events=told,
        manifest=manifest(
            task={"name": "regress"}, data={"class_counts": {}, "classes": ["age", "height"]}
        ),
    )
    text = plain(page)
    assert "0.5 R² (mean of the columns) on 360 test pictures, 95 % interval 0.45 to 0.55" in text
    assert "Best R² (mean of the columns) on held-out pictures: 0.5, after epoch 2." in text
    assert "mean absolute error, height 0.07" in text
    assert "R², age 0.4" in text


def test_multilabel(tmp_path: Path) -> None:
    found = Scores(
        metrics={
            "accuracy": wilson(100, 360),
            "macro_f1": Interval(value=0.81, low=0.78, high=0.83, n=360),
        },
        classes=scores().classes,
    )
    page = written(tmp_path, scores={"val": found}, manifest=manifest(task={"name": "multilabel"}))
    text = plain(page)
    assert "81.0 % macro F1 on 360 held-out pictures, 95 % interval 78.0 to 83.0" in text
    assert "all labels right 27.8 %" in text
    assert "commonest" not in text
    assert "How each label fares" in headings(page)


def test_broken_values_do_not_break_the_page(tmp_path: Path) -> None:
    values = {"epoch": 1, "loss": float("nan"), "val_loss": None, "val_accuracy": 0.5}
    page = written(tmp_path, events=[Event(step=1, kind="epoch", values=values, time=0.0)])
    assert "How it learned" not in headings(page)
    page = written(tmp_path, manifest={"config": {}}, events=(), sheet=None)
    assert headings(page)[-1] == "Run it again"


def test_a_resumed_run_tells_each_epoch_once(tmp_path: Path) -> None:
    assert "trained for 3 epochs in 6.0 s" in plain(
        written(tmp_path, events=[*epochs(2)[:-1], *epochs(3)])
    )


@pytest.mark.usefixtures("drawn")
def test_hostile_names_stay_names(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>\x00\u202e\udcff$x$"
    rows = tuple(
        ClassRow(name=nasty, precision=row.precision, recall=row.recall, f1=row.f1, n=row.n)
        for row in scores().classes
    )
    page = written(
        tmp_path,
        scores={"val": scores(classes=rows)},
        manifest=manifest(
            data={"source": nasty, "classes": [nasty] * 3}, argv=[nasty, nasty], config={"x": nasty}
        ),
        mistakes=[mistake(name=nasty, truth=nasty, answer=nasty)],
        faults=[Fault(path=nasty, format=nasty, code=nasty, reason=nasty, policy="skip")],
        notes=(nasty,),
    )
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x00\\u202e\\xff$x$" in page
    assert not set(page) & {"\x00", "\u202e"}


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("n", [2, 30, 120])
def test_any_number_of_classes(tmp_path: Path, n: int) -> None:
    names = [f"class {i}" for i in range(n)]
    table = np.full((n, n), 1) + 9 * np.eye(n, dtype=int)
    rows = tuple(
        ClassRow(name=name, precision=wilson(10, 9 + n), recall=wilson(10, 9 + n), f1=None, n=9 + n)
        for name in names
    )
    page = written(
        tmp_path,
        manifest=manifest(data={"classes": names, "class_counts": {"train": [5] * n}}),
        scores={
            "val": Scores(
                metrics={"accuracy": wilson(10 * n, (9 + n) * n)},
                classes=rows,
                confusion=tuple(tuple(row) for row in table.tolist()),
            )
        },
    )
    assert all(f">{name}<" in page for name in names)
    assert len(page) < 800_000


@pytest.mark.usefixtures("drawn")
def test_equal_runs_give_equal_reports(tmp_path: Path) -> None:
    assert written(tmp_path) == written(tmp_path)


def test_the_page_is_a_page(tmp_path: Path) -> None:
    run = report.Finished(
        manifest=manifest(),
        epochs=[],
        events=(),
        scores={},
        mistakes=(),
        sheet=None,
        faults=(),
        counts=DataCount(found=0, used=0, skipped=0),
        notes=(),
        answers={},
    )
    page = report.build(run)
    assert isinstance(page, html.Page)
    assert page.headline is None


def test_the_report_says_what_confidence_was_divided_by(tmp_path: Path) -> None:
    told = {"value": 0.608, "n": 180, "ece": {"before": 0.027, "after": 0.013}, "reason": ""}
    text = plain(written(tmp_path, temperature=told))
    assert "divided by 0.608" in text
    assert "from 2.7 % to 1.3 %" in text
    none = {**told, "value": 1.0, "reason": "all of 180 answers are right"}
    text = plain(written(tmp_path, temperature=none))
    assert "No temperature was fitted: all of 180 answers are right." in text
