"""Tables of answers: what stands in them, and that no stop changes it."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from neocog import __version__
from neocog.cli import cli
from neocog.config import Recipe
from neocog.errors import ConfigError, DataError, NeocogError, RunError
from neocog.lock import locked
from neocog.runtime import answering
from neocog.runtime.fastest import Candidate
from neocog.settings import from_dict
from neocog.verbs import answers, choice
from neocog.verbs.answer_files import CsvTable, ParquetTable
from neocog.verbs.answers import Wanted, paths_of, write_table
from neocog.verbs.choice import Choice
from neocog.verbs.console import Console
from neocog.verbs.mask_files import MaskFiles
from neocog.verbs.predict import table
from neocog.verbs.train import fit
from pretended import Pretended

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neocog.run import Run

COUNT = 150
"""Pictures in a folder; two of them are broken."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    chance = np.random.default_rng(0)
    for number in range(COUNT):
        folder = root / f"c{number % 3}"
        folder.mkdir(exist_ok=True)
        pixels = chance.integers(0, 256, (*chance.integers(8, 14, 2), 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    (root / "c0" / "003.png").write_bytes(b"no picture")
    (root / "c2" / "149.png").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    plain = {"precision": "fp32", "layout": "contiguous", "compile": "off", "threads": 1}
    settings = {"model": "mlp", "engine": plain | {"epochs": 1}, "data": {"max_bad": 0.1}}
    out = tmp_path_factory.mktemp("run") / "mlp"
    return fit(None, pictures, from_dict(Recipe, settings), out=out, quiet=True)


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, Any]:
    """How a command ended, and the JSON that it printed."""
    capsys.readouterr()
    code = 0
    try:
        cli.main([str(word) for word in words] + ["--json"], standalone_mode=False)
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, json.loads(capsys.readouterr().out)


def rows(path: Path) -> list[dict[str, str]]:
    """By Python's own reader."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def write(
    to: Path, *sources: object, engine: Pretended | None = None, **options: Any
) -> dict[str, Any]:
    """A table by an engine without a network."""
    own = engine or Pretended(together=True)
    wanted = Wanted(to=to, sources=tuple(map(str, sources)), **options)

    def masks(_: object) -> MaskFiles | None:
        return MaskFiles(wanted.out, 3, wanted.overlay) if wanted.out else None

    return write_table(wanted, lambda *_: own, Console(quiet=True), masks)


# ------------------------------------------------------------------------------ what is in a table


def test_a_csv_says_what_the_json_says(
    run: Run, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, entries = call(capsys, "predict", run.path, pictures)
    assert code == 1
    to = tmp_path / "answers.csv"
    code, summary = call(capsys, "predict", run.path, pictures, "--to", to, "--all")
    assert code == 0  # two of many could not be read: they are rows with an error
    assert summary["found"] == COUNT
    assert summary["used"] + summary["skipped"] == COUNT
    assert (summary["skipped"], summary["resumed"]) == (2, 0)
    assert summary["engine"]["kind"] == "torch"
    found = rows(to)
    assert list(found[0]) == ["path", "label", "probability", "error", "c0", "c1", "c2"]
    assert len(found) == len(entries)
    for row, entry in zip(found, entries, strict=True):
        assert row["path"] == entry["path"]
        assert row["error"] == entry.get("error", "")
        assert row["label"] == entry.get("label", "")
        if "error" in entry:
            assert row["probability"] == row["c0"] == ""
            continue
        assert float(row["probability"]) == entry["probability"]
        each = {one["label"]: one["probability"] for one in entry["top"]}
        assert {name: float(row[name]) for name in each} == each
    assert to.read_bytes().endswith(b"\n")
    assert b"\r" not in to.read_bytes()


def test_parquet_is_one_table_with_the_same_rows(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "eval_batch", lambda _: 16)
    monkeypatch.setattr(ParquetTable, "seconds", 0.0)
    write(tmp_path / "a.csv", pictures, each=True)
    write(tmp_path / "a.parquet", pictures, each=True)
    parts = sorted(path.name for path in (tmp_path / "a.parquet").iterdir())
    assert parts[0] == "part-00000.parquet"
    assert len(parts) == 10
    found = parquet.read_table(tmp_path / "a.parquet")
    about = json.loads(found.schema.metadata[b"neocog"])
    assert about["version"] == __version__
    assert about["digest"] == "0" * 64
    assert str(found.schema.field("red").type) == "float"
    for row, other in zip(found.to_pylist(), rows(tmp_path / "a.csv"), strict=True):
        for name, value in row.items():
            text = other[name]
            assert (value is None and text == "") or (text in (value, repr(value)))
    stored = parquet.ParquetFile(tmp_path / "a.parquet" / parts[0]).metadata
    assert stored.row_group(0).column(0).compression == "ZSTD"


def test_numbers_have_a_column_each(pictures: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", pictures, engine=Pretended("regress"))
    found = rows(tmp_path / "a.csv")
    assert list(found[0]) == ["path", "error", "red", "green", "blue"]
    good = [row for row in found if not row["error"]]
    assert len(good) == COUNT - 2
    for row in good:
        assert sum(float(row[name]) for name in ("red", "green", "blue")) == pytest.approx(1)
    with pytest.raises(ConfigError, match="task regress has none"):
        write(tmp_path / "b.csv", pictures, engine=Pretended("regress"), each=True)


def test_masks_have_shares_and_are_written_where_that_is_said(
    pictures: Path, tmp_path: Path
) -> None:
    write(tmp_path / "a.csv", pictures, engine=Pretended("segment"))
    plain = rows(tmp_path / "a.csv")
    assert list(plain[0]) == ["path", "label", "error", "red", "green", "blue"]
    out = tmp_path / "masks"
    options: dict[str, Any] = {"out": out, "overlay": True}
    write(tmp_path / "b.csv", pictures, engine=Pretended("segment"), **options)
    drawn = rows(tmp_path / "b.csv")
    assert len({row["mask"] for row in drawn if row["mask"]}) == COUNT - 2
    for row, other in zip(drawn, plain, strict=True):
        assert {**row, "mask": None, "overlay": None} == {**other, "mask": None, "overlay": None}
        if row["error"]:
            assert row["mask"] == ""
            continue
        assert Path(row["mask"]) == out / f"{Path(row['path']).relative_to(pictures)}.png"
        with Image.open(row["mask"]) as mask, Image.open(row["path"]) as picture:
            classes = np.asarray(picture).argmax(axis=2)  # the first of equals, as ours
            assert np.array_equal(np.asarray(mask), classes)
            share = float((classes == 1).mean())
        assert float(row["green"]) == pytest.approx(share, abs=1e-12)
        assert Path(row["overlay"]).is_file()


def test_samples_of_arrays_are_rows(pictures: Path, tmp_path: Path) -> None:
    many = tmp_path / "many.npz"
    np.savez(many, x=np.zeros((5, 8, 8, 3), np.uint8))
    one = pictures / "c1" / "001.png"
    summary = write(tmp_path / "a.csv", one, many, tmp_path / "gone.png")
    assert (summary["found"], summary["skipped"]) == (7, 1)
    names = [row["path"] for row in rows(tmp_path / "a.csv")]
    assert names == [str(one), *(f"{many}[{k}]" for k in range(5)), str(tmp_path / "gone.png")]


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has such names")
def test_names_of_all_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are no UTF-8, line ends, quotes, commas; and what a spreadsheet would compute."""
    folder = tmp_path / "odd"
    folder.mkdir()
    names = [b"\xff.png", b"a\nb.png", b'q"u,o.png', "naïve 猫.png".encode(), b"=1+1.png"]
    for name in names:
        with contextlib.suppress(OSError):  # a file system that takes UTF-8 alone
            Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(b"x")  # noqa: PTH118
    write(tmp_path / "a.csv", folder)
    found = {row["path"].removeprefix(f"{folder}/") for row in rows(tmp_path / "a.csv")}
    assert {"a\\nb.png", 'q"u,o.png', "naïve 猫.png", "=1+1.png"} <= found
    assert found <= {"a\\nb.png", 'q"u,o.png', "naïve 猫.png", "=1+1.png", "\\xff.png"}
    monkeypatch.chdir(folder)
    write(tmp_path / "b.csv", "=1+1.png")
    assert [row["path"] for row in rows(tmp_path / "b.csv")] == ["./=1+1.png"]


def test_none_that_can_be_read_is_a_failure(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    code, summary = call(capsys, "predict", run.path, tmp_path, "--to", tmp_path / "a.csv")
    assert (code, summary["found"], summary["used"]) == (1, 1, 0)


def test_the_fastest_engine_is_taken_and_taken_again(
    run: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured once: what goes on, goes on with the engine that began."""
    slow, quick = Pretended(each=lambda _: time.sleep(0.02)), Pretended()
    quick.kind = "onnxruntime"
    able = [
        Candidate(kind=one.kind, threads=1, digest=one.digest, make=lambda one=one: one)  # type: ignore[misc]
        for one in (slow, quick)
    ]
    monkeypatch.setattr(choice, "candidates", lambda *_, **__: able)
    opened: list[object] = []
    monkeypatch.setattr(choice, "open_engine", lambda *_, **__: opened.append(0) or slow)
    said: list[str] = []
    asked = Choice(path=run.path)

    def paths() -> Iterator[str]:
        return paths_of([str(pictures)])

    assert asked.open(choice.FEW - 1, paths, said.append) is slow
    assert said == []
    assert asked.open(choice.FEW, paths, said.append) is quick
    assert said[0].startswith("engine: onnxruntime, 1 thread(s) (measured in ")
    assert len(opened) == 1  # not once more, to be compared with itself
    monkeypatch.setattr(choice, "fastest", None)
    wanted = Wanted(to=tmp_path / "a.csv", sources=(str(pictures),))
    write(wanted.to, pictures, engine=quick)
    assert table(asked, wanted, console=Console(quiet=True))["resumed"] == COUNT
    named = Choice(path=run.path, engine="torch")
    with pytest.raises(RunError, match="with another engine: onnxruntime, now torch"):
        table(named, wanted, console=Console(quiet=True))


# ----------------------------------------------------------------------------------- after a stop


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_table_that_was_stopped_ends_as_if_never_stopped(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any time, killed between any two writes, and by a disk that is full."""
    tables = [
        tmp_path / f"{mode}.{kind}"
        for mode in ("time", "call", "disk")
        for kind in ("csv", "parquet")
    ]
    script = Path(__file__).with_name("stopped_tables.py")
    paths = os.pathsep.join([str(Path(answers.__file__).parents[2]), str(script.parent)])
    done = subprocess.run(
        [sys.executable, str(script), str(pictures), *map(str, tables)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert min(map(int, done.stdout.split())) >= 1, done.stdout
    assert "File too large" in done.stderr
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {name for to in tables for name in (to.name, f"{to.name}.progress.json")}
    monkeypatch.setattr(answering, "eval_batch", lambda _: 16)
    write(tmp_path / "whole.csv", pictures, each=True)
    write(tmp_path / "whole.parquet", pictures, each=True)
    whole = parquet.read_table(tmp_path / "whole.parquet")
    for to in tables:
        if to.suffix == ".csv":
            assert to.read_bytes() == (tmp_path / "whole.csv").read_bytes(), to
        else:
            assert parquet.read_table(to).equals(whole), to
        state = json.loads(to.with_name(f"{to.name}.progress.json").read_text())
        assert (state["found"], state["used"], state["skipped"]) == (COUNT, COUNT - 2, 2)
        assert state["finished"]


@contextlib.contextmanager
def interrupted(monkeypatch: pytest.MonkeyPatch, to: Path, *sources: object) -> Iterator[None]:
    """A table of which five batches of 16 were written, and a torn line behind them."""
    monkeypatch.setattr(answering, "eval_batch", lambda _: 16)
    monkeypatch.setattr(CsvTable, "seconds", 0.0)
    calls = 0

    def stop(_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(to, *sources, engine=Pretended(together=True, each=stop))
    with to.open("ab") as file:
        file.write(b"c1/0")
    yield


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_heeded_at_the_end_of_a_batch(
    number: signal.Signals,
    code: int,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a terminal sends it: to the program and to its helpers."""
    to, script = tmp_path / "a.csv", Path(__file__).with_name("signalled_tables.py")
    paths = os.pathsep.join([str(Path(answers.__file__).parents[2]), str(script.parent)])
    with subprocess.Popen(
        [sys.executable, str(script), "predict", "run", str(pictures), "--to", str(to)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    ) as program:
        assert program.stdout is not None
        for _ in range(3):
            assert program.stdout.readline() == "batch\n"
        os.killpg(program.pid, number)
        _, said = program.communicate(timeout=60)
    assert program.returncode == code, said
    state = json.loads((tmp_path / "a.csv.progress.json").read_text())
    count = state["found"]
    assert f"stopped at {count} of {COUNT} files; the same command goes on" in said
    assert f"stopped by {number.name}" in said
    assert 48 <= count < COUNT
    assert len(rows(to)) == count
    assert state["kept"] == to.stat().st_size
    monkeypatch.setattr(answering, "eval_batch", lambda _: 16)
    assert write(to, pictures)["resumed"] == count
    write(tmp_path / "whole.csv", pictures)
    assert to.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_ctrl_c_loses_nothing_that_was_written(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an array of which some samples are left: the batch ends in the middle of a file."""
    many = tmp_path / "many.npz"
    np.savez(many, x=np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8))
    to = tmp_path / "a.csv"
    for sources in ((many, pictures), (pictures / "c0", many)):
        with interrupted(monkeypatch, to, *sources):
            engine = Pretended(together=True)
            summary = write(to, *sources, engine=engine)
            assert 80 <= summary["resumed"] <= 81  # the broken picture is a row, too
            left = summary["found"] - summary["resumed"]
            assert engine.calls == -(-left // 16)
        write(tmp_path / "whole.csv", *sources)
        assert to.read_bytes() == (tmp_path / "whole.csv").read_bytes()
        for path in (to, tmp_path / "whole.csv"):
            path.unlink()
            path.with_name(f"{path.name}.progress.json").unlink()


def test_a_finished_table_is_left_alone(pictures: Path, tmp_path: Path) -> None:
    to = tmp_path / "a.csv"
    write(to, pictures / "c1")
    before = to.stat()
    engine = Pretended()
    summary = write(to, pictures / "c1", engine=engine)
    assert engine.calls == 0
    assert summary["resumed"] == summary["found"] == 50
    assert to.stat().st_mtime_ns == before.st_mtime_ns


def test_what_cannot_go_on_is_refused(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for number, path in enumerate(sorted(pictures.rglob("*.png"))):
        (own / f"{number:03d}.png").write_bytes(path.read_bytes())
    to = tmp_path / "a.csv"
    with interrupted(monkeypatch, to, own):
        other = Pretended()
        other.digest = "1" * 64
        for words, sources, options in (
            ("another network", (own,), {"engine": other}),
            ("other columns", (own,), {"each": True}),
            ("other files", (own, pictures), {}),
        ):
            with pytest.raises(RunError, match=words) as caught:
                write(to, *sources, **options)
            assert "--again" in caught.value.hint
        (own / "000a.png").write_bytes(b"x")
        with pytest.raises(RunError, match="no longer the same"):
            write(to, own)
        (own / "000a.png").unlink()
        whole = to.read_bytes()
        to.write_bytes(whole[:500])
        with pytest.raises(RunError, match="no longer what was written"):
            write(to, own)
        to.write_bytes(whole)
        (own / "999.png").write_bytes(b"x")  # after the place where it stopped
        assert write(to, own)["found"] == COUNT + 1
    (own / "9999.png").write_bytes(b"x")
    with pytest.raises(RunError, match=r"finished, and now there is also .*9999"):
        write(to, own)
    assert write(to, own, again=True)["found"] == COUNT + 2


def test_what_is_there_is_not_overwritten(pictures: Path, tmp_path: Path) -> None:
    to = tmp_path / "mine.csv"
    to.write_text("mine")
    with pytest.raises(RunError, match="was not begun by this command"):
        write(to, pictures)
    assert to.read_text() == "mine"
    state = tmp_path / "mine.csv.progress.json"
    for text in ("{", "[]", '{"format": 1}', '{"format": 9}'):
        state.write_text(text)
        with pytest.raises(RunError):
            write(to, pictures)
        assert to.read_text() == "mine"
    with locked(tmp_path, ".b.csv.lock"), pytest.raises(RunError, match="another process"):
        write(tmp_path / "b.csv", pictures)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "a.txt"], "expected a table .csv or .parquet"),
        (["--all"], "are about a table"),
        (["--engine", "tourch"], "did you mean 'torch'"),
        (["--to", "a.csv", "--out", "masks"], "nothing to draw"),
        (["--to", "a.csv", "--out", "{pictures}/masks"], "could come among the pictures"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    run: Run, pictures: Path, tmp_path: Path, words: list[str], said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    given = [word.format(pictures=pictures) for word in words]
    with pytest.raises(Exception, match=said) as caught:
        cli.main(["predict", str(run.path), str(pictures), *given], standalone_mode=False)
    assert isinstance(caught.value, NeocogError) or "UsageError" in type(caught.value).__name__
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_said_before_anything_is_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    to = tmp_path / "a.csv"
    with pytest.raises(DataError, match="holds no image files"):
        write(to, tmp_path / "empty")
    assert not to.exists()
