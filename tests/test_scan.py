"""The scan: every sample looked at once, faults reported, counts that close."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from neocog.data import workers
from neocog.data.looks import Order
from neocog.data.samples import Part, Source
from neocog.data.scan import refuse, refuse_empty_classes, scan, write_faults
from neocog.data.workers import look_at_all
from neocog.errors import DataError, NeocogError
from neocog.records import DataCount, Fault

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def folder(root: Path, files: dict[str, bytes]) -> Source:
    """A source of files, made by hand; the class is the folder."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    names = tuple(sorted(files))
    return Source(
        kind="folder",
        target="class",
        classes=tuple(sorted({name.split("/")[0] for name in names})),
        parts=(
            Part(
                names=names,
                splits=("",) * len(names),
                targets=tuple(name.split("/")[0] for name in names),
                files=tuple(str(root / name) for name in names),
                root=root,
            ),
        ),
    )


def array_source(pixels: NDArray[np.uint8]) -> Source:
    count = len(pixels)
    part = Part(
        names=tuple(f"train[{i}]" for i in range(count)),
        splits=("train",) * count,
        targets=("a",) * count,
        pixels=pixels,
    )
    return Source(kind="npz", target="class", classes=("a",), parts=(part,))


def pictures(count: int, side: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("helpers", [0, 2])
def test_finds_sizes_digests_faults_and_pixels(tmp_path: Path, helpers: int) -> None:
    small, good = pictures(6), png(pictures(1, 200)[0])
    files = {f"a/{i}.png": png(small[i]) for i in range(6)}
    files |= {"b/0.png": b"", "b/1.png": png(small[0][..., 0]), "b/2.png": good[:500]}
    files |= {"b/3.png": good, "b/4\n.png": png(small[1])}
    source = folder(tmp_path / "data", files)
    spool = tmp_path / "spool"
    found = scan(source, workers=helpers, spool=spool, cover=(64, 64))
    assert found.count == DataCount(found=11, used=9, skipped=2)
    rows = [name for name, used in zip(source.parts[0].names, found.used, strict=True) if used]
    assert "b/0.png" not in rows
    assert "b/2.png" not in rows
    assert [(f.path, f.code, f.policy) for f in found.faults] == [
        ("b/0.png", "empty-file", "skip"),
        ("b/2.png", "truncated", "skip"),
        ("b/4\\n.png", "odd-name", "accept"),
    ]
    assert found.faults[1].offset == 500
    assert found.heights.tolist() == [8] * 6 + [0, 8, 0, 200, 8]
    assert found.channels.tolist() == [3] * 6 + [0, 1, 0, 3, 3]
    for row, name in enumerate(source.parts[0].names):
        expected = hashlib.sha256(files[name]).digest() if found.used[row] else bytes(32)
        assert found.digests[row].tobytes() == expected
    assert found.spool is not None
    data = spool.read_bytes()
    for row in range(6):  # small pictures lie there as they are
        at = found.spool.offsets[row]
        assert data[at : at + 192] == small[row].tobytes()
    assert (found.spool.heights[9], found.spool.widths[9]) == (74, 74)  # 1.15 · 64, rounded
    assert found.spool.offsets[6] == -1


def test_helpers_find_what_this_process_finds(tmp_path: Path) -> None:
    files = {f"a/{i:03d}.png": png(pictures(1, 5 + i % 7)[0]) for i in range(90)}
    files["a/050.png"] = b"<html>"
    source = folder(tmp_path, files)
    paths = [(str(path), str(tmp_path)) for path in source.parts[0].files or ()]
    alone = list(look_at_all(paths, Order(), workers=0))
    assert list(look_at_all(paths, Order(), workers=3)) == alone
    assert len(alone) == 90


def test_files_around_an_array_keep_their_rows(tmp_path: Path) -> None:
    first = folder(tmp_path / "x", {"a/0.png": png(pictures(1)[0]), "a/1.png": b"<html>"})
    last = folder(tmp_path / "y", {"b/0.png": b"", "b/1.png": png(pictures(1, 9)[0])})
    rows = array_source(pictures(3))
    parts = (*first.parts, *rows.parts, *last.parts)
    source = Source(kind="folder", target="class", classes=("a", "b"), parts=parts)
    found = scan(source, spool=tmp_path / "spool")
    assert found.used.tolist() == [True, False, True, True, True, False, True]
    assert found.heights.tolist() == [8, 0, 8, 8, 8, 0, 9]
    assert [(fault.path, fault.code) for fault in found.faults] == [
        ("a/1.png", "html"),
        ("b/0.png", "empty-file"),
    ]
    assert np.array_equal(found.digests[2:5], scan(rows).digests)
    assert found.spool is not None
    assert (found.spool.offsets >= 0).tolist() == [True, *[False] * 5, True]
    at = found.spool.offsets[6]
    assert (tmp_path / "spool").read_bytes()[at:] == pictures(1, 9).tobytes()


def test_arrays(tmp_path: Path) -> None:
    pixels = pictures(5)
    found = scan(array_source(pixels))
    assert found.count == DataCount(found=5, used=5, skipped=0)
    assert len({row.tobytes() for row in found.digests}) == 5
    twice = scan(array_source(np.concatenate([pixels, pixels[:1]])))
    assert np.array_equal(twice.digests[0], twice.digests[5])
    assert np.array_equal(twice.digests[:5], found.digests)
    with pytest.raises(DataError, match="N×H×W×1 or N×H×W×3"):
        scan(array_source(pixels[..., :2]))
    with pytest.raises(DataError, match="at least 9"):
        scan(array_source(pixels), minimum_side=9)


def test_minimum_side_and_progress(tmp_path: Path) -> None:
    source = folder(tmp_path, {"a/0.png": png(pictures(1)[0]), "a/1.png": png(pictures(1, 20)[0])})
    seen: list[tuple[str, int, int]] = []
    found = scan(source, minimum_side=10, progress=lambda *facts: seen.append(facts))
    assert found.used.tolist() == [False, True]
    assert found.faults[0].code == "too-small"
    assert seen == [("scan", 1, 2), ("scan", 2, 2)]  # the end once


def test_a_file_that_kills_its_helper_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A helper that dies whenever it meets the file `deadly`, as a broken decoder would.
    trap = tmp_path / "trap" / "sitecustomize.py"
    trap.parent.mkdir()
    trap.write_text(
        "import os, neocog.data.files as files\n"
        "real = files.read_file\n"
        "def read_file(path, **rest):\n"
        "    if 'deadly' in str(path): os._exit(9)\n"
        "    return real(path, **rest)\n"
        "files.read_file = read_file\n"
    )
    source = folder(
        tmp_path / "data",
        {f"a/{i}.png": png(pictures(1)[0]) for i in range(9)} | {"a/deadly.png": b"x"},
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(trap.parent), *sys.path]))
    found = scan(source, workers=2)
    assert found.count == DataCount(found=10, used=9, skipped=1)
    assert [(f.path, f.code) for f in found.faults] == [("a/deadly.png", "decoder-died")]
    assert "exit code 9" in found.faults[0].reason


def test_helpers_that_cannot_start_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(tmp_path, {"a/0.png": png(pictures(1)[0])})
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(NeocogError, match=r"(?s)did not start.*workers=0"):
        scan(source, workers=1)


def test_abandoned_helpers_end(tmp_path: Path) -> None:
    source = folder(tmp_path, {f"a/{i}.png": png(pictures(1)[0]) for i in range(40)})
    looks = look_at_all([(str(p), None) for p in source.parts[0].files or ()], Order(), workers=2)
    assert next(looks).usable
    looks.close()  # a helper or a pipe left open would be a ResourceWarning, an error here
    with pytest.raises(StopIteration):
        next(looks)


def test_works_from_a_script_without_a_main_guard(tmp_path: Path) -> None:
    folder(tmp_path / "data", {f"a/{i}.png": png(pictures(1)[0]) for i in range(8)})
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from neocog.data.looks import Order\n"
        "from neocog.data.workers import look_at_all\n"
        "print('started')\n"
        f"files = [(str(p), None) for p in sorted(Path({str(tmp_path)!r}).glob('data/a/*'))]\n"
        "print(sum(look.usable for look in look_at_all(files, Order(), workers=2)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.split() == ["started", "8"]


def fault(code: str, policy: Any, path: str = "a/0.png") -> Fault:
    return Fault(path=path, format="png", code=code, reason="why", policy=policy)


def test_refusals() -> None:
    count = DataCount(found=100, used=99, skipped=1)
    skips = [fault("alpha", "accept", "a/1.png"), fault("truncated", "skip")]
    refuse(skips, count)
    with pytest.raises(DataError, match=r"(?s)a/0\.png: why.*1 × truncated; strict"):
        refuse(skips, count, strict=True)
    with pytest.raises(DataError, match=r"(?s)1 of 100 .*at most 0\.005.*1 × truncated"):
        refuse(skips, count, max_bad=0.005)
    with pytest.raises(DataError, match=r"(?s)1 × 16-bit.*convert"):
        refuse([fault("16-bit", "refuse")], count, max_bad=1.0)
    with pytest.raises(DataError, match="none that can be used"):
        refuse([], DataCount(found=0, used=0, skipped=0))
    refuse(skips, count, max_bad=0.01)


def test_a_class_that_lost_its_last_sample_is_refused() -> None:
    refuse_empty_classes(["a", "b", "c"], ["a", "b"], ["a", "b"], [])
    with pytest.raises(DataError, match=r"(?s)class 'b'.*1 × truncated"):
        refuse_empty_classes(["a", "b"], ["a", "b"], ["a"], [fault("truncated", "skip")])


def test_fault_report(tmp_path: Path) -> None:
    path = tmp_path / "new" / "faults.jsonl"
    write_faults(path, [fault("truncated", "skip"), fault("alpha", "accept")])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["code"] for line in lines] == ["truncated", "alpha"]
    assert set(lines[0]) == {"path", "format", "code", "reason", "policy", "offset"}
    with pytest.raises(DataError, match="cannot write"):
        write_faults(path / "below", [])


def test_small_sets_take_one_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crews: list[int] = []

    class Crew(workers.Crew):
        def __init__(self, count: int, *rest: Any) -> None:
            crews.append(count)
            super().__init__(count, *rest)

    monkeypatch.setattr(workers, "Crew", Crew)
    source = folder(tmp_path, {f"a/{i}.png": png(pictures(1)[0]) for i in range(20)})
    assert scan(source).count.used == 20
    assert crews == [1]  # never this process: a decoder that crashes would take it along
    assert scan(source, workers=0).count.used == 20
    assert crews == [1]
