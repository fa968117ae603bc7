"""From a row of a table to its pictures: every link leads to what it names."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.datasets import load_sample_image

from neocog import html, plots, report
from neocog.cli import cli
from neocog.engine.kept import Kept
from neocog.records import ClassRow, DataCount, Interval, Scores
from neocog.report.answers import OF_EACH
from neocog.run import open_run
from neocog.verbs import mistakes

PIXEL = html.data_uri(np.zeros((2, 2, 3), np.uint8))


def linked(link: str, *anchors: str) -> html.Page:
    items = tuple(html.Picture(image=PIXEL, alt="x", title="x", anchor=one) for one in anchors)
    table = html.Table(caption="t", columns=("a",), rows=((html.Cell(text="to", link=link),),))
    return html.Page(
        title="links",
        sections=(html.Section(title="s", blocks=(table, html.Pictures(items=items))),),
    )


def test_a_cell_leads_to_a_picture() -> None:
    text = html.render(linked("cat-3", "", "cat-3", ""))
    assert re.search('<a href="#cat-3"[^>]*><bdi>to</bdi></a>', text)
    assert text.count('id="cat-3"') == 1


@pytest.mark.parametrize(
    "link", ["https://example.org", "#x", "javascript:1", "X", "a b", '"', "-"]
)
def test_only_fragments_are_links(link: str) -> None:
    with pytest.raises(ValueError, match="expected a fragment"):
        html.Cell(text="x", link=link)
    with pytest.raises(ValueError, match="expected a fragment"):
        html.Picture(image=PIXEL, alt="x", title="x", anchor=link)


def test_links_that_lead_nowhere_are_refused() -> None:
    with pytest.raises(ValueError, match="none for"):
        html.render(linked("cat-3", "dog-1"))
    with pytest.raises(ValueError, match="'dog-1' twice"):
        html.render(linked("dog-1", "dog-1", "dog-1"))
    with pytest.raises(ValueError, match="'content' twice"):
        html.render(linked("content", "content"))


def test_a_page_of_a_thousand_classes_stays_small(tmp_path: Path) -> None:
    """As many pictures as there can be, photographs all of them."""
    photograph = load_sample_image("china.jpg")
    draw = np.random.default_rng(0)
    names = [f"n{at:08d} class" for at in range(1000)]
    table = np.diag(np.full(1000, 30)) + draw.binomial(1, 0.02, (1000, 1000))
    pairs = plots.confused_pairs(table.tolist())[: 2 * mistakes.PAIRS]
    share = Interval(value=0.6, low=0.5, high=0.7, n=50)
    rows = tuple(ClassRow(name=n, precision=share, recall=share, f1=share, n=50) for n in names)
    found = [
        report.Mistake(
            picture=photograph[at : at + 256, 2 * at : 2 * at + 256],
            name=f"{at}.jpg",
            truth=names[true],
            answer=names[answer],
            sample=at >= mistakes.SHOWN,
        )
        for at, (true, answer, _) in enumerate(pairs * OF_EACH)
    ]
    path = report.write(
        tmp_path / "report.html",
        manifest={"task": {"name": "classify"}, "data": {"classes": names, "size": [224, 224]}},
        events=(),
        scores={
            "val": Scores(
                metrics={"accuracy": share}, classes=rows, confusion=table.tolist(), calibration={}
            )
        },
        mistakes=found,
        sheet=None,
        faults=(),
        counts=DataCount(found=50000, used=50000, skipped=0),
        notes=(),
    )
    text = path.read_text(encoding="utf-8")
    assert len(text) < 5_000_000
    assert len(pictured(text)) == 2 * mistakes.PAIRS


def cells_of(text: str, columns: tuple[str, ...]) -> list[list[tuple[str, str]]]:
    """Rows of the table that begins with these columns: each cell's text and link."""
    for table in re.findall(r"<table.*?</table>", text, re.DOTALL):
        heads = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table)
        if tuple(heads[: len(columns)]) == columns:
            body = table[table.index("<tbody>") :]
            rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
            return [
                [
                    (re.sub(r"<[^>]+>", "", cell), "".join(re.findall(r'href="#([^"]+)"', cell)))
                    for cell in re.findall(r"<(?:th|td)\b.*?</(?:th|td)>", row, re.DOTALL)
                ]
                for row in rows
            ]
    raise AssertionError(f"no table of {columns}")


def pictured(text: str) -> dict[str, tuple[str, str]]:
    """Anchor → truth and answer of the picture there."""
    found = re.findall(
        r'<li id="([^"]+)"[^>]*>.*?"verdict"><bdi>(.*?)</bdi>.*?<bdi class="wrong">(.*?)</bdi>',
        text,
        re.DOTALL,
    )
    return {anchor: (truth, answer) for anchor, truth, answer in found}


def test_rows_of_a_run_lead_to_pictures_of_their_confusions(tmp_path: Path) -> None:
    arguments = ["train", "digits", "--model", "mlp", "--epochs", "1", "--val", "0.5"]
    done = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    shown = pictured(text)
    confusions = cells_of(text, ("Truth", "Answer"))
    assert len(confusions) > 2
    for (truth, link), (answer, _), (count, _), _ in confusions[: mistakes.PAIRS]:
        assert shown[link] == (truth, answer)
        # As many pictures of it as there are, three at most.
        grid = text[text.index("Some of each confusion") :]
        pair = f'<bdi>{truth}</bdi> .*?<bdi class="wrong">{answer}</bdi>'
        beside = len(re.findall(pair, grid)) if "Some of each" in text else 0
        assert beside == min(int(count), OF_EACH)
    missed = {truth for (truth, _), *_ in confusions}
    for (name, link), *_ in cells_of(text, ("Class", "Recall")):
        assert (link != "") == (name in missed)
        assert name not in missed or shown[link][0] == name


@pytest.mark.parametrize("val", [0.1, 0.5])
def test_kept_answers_show_the_mistakes_that_asking_again_shows(tmp_path: Path, val: float) -> None:
    """With half held back also those of confusions beyond the largest losses."""
    arguments = ["train", "digits", "--model", "mlp", "--epochs", "1", "--val", str(val)]
    done = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    run = open_run(tmp_path / "run")
    data, kept = run.data(), Kept()
    scores, result = run.score(data, "val", torch.device("cpu"), kept)
    again = mistakes.worst(run, data, "val", scores, result.losses, None)
    found = mistakes.worst(run, data, "val", scores, result.losses, kept)
    assert len(found) > 10
    assert val < 0.5 or any(one.sample for one in found)
    for one, other in zip(found, again, strict=True):
        assert np.array_equal(one.picture, other.picture)
        assert (one.name, one.truth, one.answer) == (other.name, other.truth, other.answer)
        assert one.sample == other.sample
        # Sums of floats depend on how many samples are answered together.
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
        assert one.probability == pytest.approx(other.probability, abs=1e-5)
