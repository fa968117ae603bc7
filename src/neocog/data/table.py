"""Tables of pictures and targets (.csv). Floor 1, room data; imports floor 0 and this room.

One row a picture: where it is, relative to the table, and what it is. A bad row is skipped and
reported with its line; a table that contradicts itself is refused.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from neocog.data.names import SPLITS, match_classes
from neocog.data.opened import open_regular
from neocog.data.samples import Part, Source
from neocog.errors import DataError, near
from neocog.records import Fault
from neocog.text import printable

if TYPE_CHECKING:
    from _csv import Reader
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from neocog.data.samples import TargetKind

__all__ = ["has_table_header", "listed_files", "read_table"]

_PATH = ("path", "image", "file", "filename")
_CLASS = ("label", "class", "target")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_LONGEST = 1 << 20
"""Characters of a line; no table of pictures has lines of that length."""
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """Where things stand in a row."""

    width: int
    path: int
    kind: Literal["class", "labels", "values"]
    targets: tuple[int, ...]
    names: tuple[str, ...]
    """Of the target columns."""
    weight: int | None
    split: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A row that can be used."""

    line: int
    name: str
    file: Path
    cells: tuple[str, ...]
    """Of the target columns."""
    weight: float
    split: str


class _BadRowError(Exception):
    """Why a row cannot be used: code and reason."""


def has_table_header(path: Path) -> bool:
    """Whether the first line names a column of pictures and one of targets.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with _opened(path) as text:
            _header(csv.reader(_lines(text, path), strict=True), path)
    except DataError:
        if not path.is_file():
            raise
        return False
    return True


def listed_files(path: Path) -> list[str]:
    """The files that a table names, as it names them, whether or not they exist.

    A table that `read_table` refuses may list fewer; this never judges.
    """
    try:
        with _opened(path) as text:
            reader = csv.reader(_lines(text, path), strict=True)
            columns = _header(reader, path)
            rows = [
                cells[columns.path].strip()
                for _, cells in _records(reader, path)
                if cells is not None and len(cells) == columns.width
            ]
    except DataError:
        return []
    return [name for name in rows if name and "\0" not in name]


def read_table(path: Path, *, few: bool = False) -> Source:
    """The data set of a .csv file with a header.

    One column `path` (or `image`, `file`, `filename`); one target: `label` (or `class`, `target`)
    with names or whole numbers (classes) or other numbers; or `labels` with names separated by `|`
    or `;`; or `value`, `values`, `value_*` with numbers. Optional: `weight` and `split`.

    Args:
        path: the table.
        few: it is only scored: one class is enough, and no row needs a label.

    Raises:
        DataError: no header, a missing or doubled column, an unknown split, numbers mixed with
            names, classes that do not match between splits, no usable row; and, unless `few`, a
            single class, or no label in any row.
    """
    where = printable(path.name)
    root = Path(os.path.abspath(path.parent))  # noqa: PTH100  (links are for the scan to follow)
    rows: list[_Row] = []
    faults: list[Fault] = []
    with _opened(path) as text:
        reader = csv.reader(_lines(text, path), strict=True)
        columns = _header(reader, path)
        for line, cells in _records(reader, path):
            try:
                rows.append(_row(cells, columns, line, root, where))
            except _BadRowError as error:
                code, reason = error.args
                faults.append(
                    Fault(
                        path=where,
                        format="csv",
                        code=code,
                        reason=f"line {line}: {reason}",
                        policy="skip",
                        offset=line,
                    )
                )
    if not rows:
        first = f"; the first of {len(faults):,} faults is: {faults[0].reason}" if faults else ""
        raise DataError(
            f"{where}: expected rows that can be used, found none{first}",
            "paths are relative to the table's own folder",
        )
    if len({bool(row.split) for row in rows}) > 1:
        line = next(row.line for row in rows if not row.split)
        raise DataError(
            f"{where}, line {line}: expected train, val or test in every row, found an empty cell",
            "fill the column `split`, or leave it out",
        )
    kind, classes, targets, remarks = _targets(rows, columns, where, few)
    part = Part(
        names=tuple(row.name for row in rows),
        splits=tuple(row.split for row in rows),
        targets=targets,
        weights=tuple(row.weight for row in rows) if columns.weight is not None else None,
        files=tuple(str(row.file) for row in rows),
        root=root,
    )
    return Source(
        kind="csv",
        target=kind,
        classes=classes,
        parts=(part,),
        faults=(*faults, *remarks),
        skipped=len(faults),
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """The table as text; bytes that are no UTF-8 become surrogates, to be found row by row."""
    with open_regular(path) as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
        try:
            yield text
        finally:
            text.detach()


def _lines(text: TextIO, path: Path) -> Iterator[str]:
    """The lines with their ends. The csv module would take one of any length to pieces."""
    while line := text.readline(_LONGEST):
        if len(line) == _LONGEST:
            raise DataError(
                f"{printable(path.name)}: expected lines of less than {_LONGEST:,} characters, "
                "found a longer one",
                "save the table as comma-separated UTF-8 text, a line for each picture",
            )
        yield line


def _records(reader: Reader, path: Path) -> Iterator[tuple[int, list[str] | None]]:
    """(first line, cells) of each record that is not blank; None for one that cannot be parsed."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            endless = "field limit" in str(error) and reader.line_num > line
            if endless or "end of data" in str(error):
                # All that follows was swallowed by one quote: nobody can say how many rows.
                raise DataError(
                    f"{printable(path.name)}, line {line}: a quote is opened and never closed",
                    'double a quote that belongs to a cell (""), or remove it',
                ) from error
            yield line, None
            continue
        if cells:
            yield line, cells


def _header(reader: Reader, path: Path) -> _Columns:
    where = printable(path.name)
    _, cells = next(_records(reader, path), (1, []))
    if cells is None or any("\0" in cell for cell in cells):
        raise DataError(
            f"{where}: expected a header line of comma-separated names, found something else",
            "save the table as comma-separated UTF-8 text",
        )
    header = [cell.strip().lower() for cell in cells]
    usable = [n for n in header if n in (*_PATH, *_CLASS, "labels", "weight", "split")]
    values = [n for n in header if n in ("value", "values") or n.startswith("value_")]
    doubled = {n for n in usable + values if header.count(n) > 1}
    if doubled:
        raise DataError(f"{where}: the column {min(doubled)!r} occurs twice", "rename one")
    path_column = _one(header, _PATH, "of pictures", where)
    groups = [[n for n in header if n in _CLASS], ["labels"] * ("labels" in header), values]
    given = [group for group in groups if group]
    if len(given) != 1 or len(groups[0]) > 1:
        found = sorted(set().union(*given)) if given else header
        raise DataError(
            f"{where}: expected one target, a column label, labels or value, found "
            + (", ".join(printable(n) for n in found[:20]) or "an empty header"),
            "call the target label (classes), labels (several, separated by |) or value (numbers)",
        )
    targets = given[0]
    kind: Literal["class", "labels", "values"] = (
        "class" if groups[0] else "labels" if groups[1] else "values"
    )
    return _Columns(
        width=len(header),
        path=header.index(path_column),
        kind=kind,
        targets=tuple(header.index(name) for name in targets),
        names=tuple(map(printable, targets)),
        weight=header.index("weight") if "weight" in header else None,
        split=header.index("split") if "split" in header else None,
    )


def _one(header: Sequence[str], options: Sequence[str], what: str, where: str) -> str:
    given = [name for name in header if name in options]
    if len(given) != 1:
        told = ", ".join(printable(n) for n in (given or header)[:20]) or "an empty header"
        raise DataError(
            f"{where}: expected one column {what} ({', '.join(options)}), found {told}",
            "columns are separated by commas; the first line names them",
        )
    return given[0]


def _row(cells: Sequence[str] | None, columns: _Columns, line: int, root: Path, where: str) -> _Row:
    """A checked row.

    Raises:
        _BadRowError: it is to be skipped.
        DataError: its split is unknown, which no skipping can repair.
    """
    if cells is None:
        raise _BadRowError(
            "bad-quotes", "expected quoted cells, found a stray quote or a huge cell"
        )
    joined = "".join(cells)
    if "\0" in joined:
        raise _BadRowError("nul", "expected text, found a NUL character")
    try:
        joined.encode()
    except UnicodeEncodeError:
        raise _BadRowError("bad-utf-8", "expected UTF-8, found other bytes") from None
    if len(cells) != columns.width:
        raise _BadRowError("ragged-row", f"expected {columns.width} cells, found {len(cells)}")
    split = ""
    if columns.split is not None and (word := cells[columns.split].strip()):
        if word.lower() not in SPLITS:
            raise DataError(
                f"{where}, line {line}: expected the split train, val or test, found "
                f"{printable(word)!r}",
                near(word, SPLITS),
            )
        split = SPLITS[word.lower()]
    targets = tuple(cells[k].strip() for k in columns.targets)
    if columns.kind != "labels" and not all(targets):
        raise _BadRowError("missing-target", "expected a target, found an empty cell")
    weight = 1.0
    if columns.weight is not None:
        word = cells[columns.weight].strip()
        weight = float(word) if _NUMBER.fullmatch(word) else math.nan
        if not 0 <= weight < math.inf:
            raise _BadRowError("bad-weight", f"expected a number ≥ 0, found {printable(word)!r}")
    name = cells[columns.path].strip()
    return _Row(
        line=line,
        name=printable(name),
        file=_existing(name, root),
        cells=targets,
        weight=weight,
        split=split,
    )


def _existing(name: str, root: Path) -> Path:
    """The picture's path below the table's folder."""
    if not name:
        raise _BadRowError("missing-image", "expected the path of a picture, found an empty cell")
    path = os.path.normpath(os.path.join(root, name))  # noqa: PTH118  (50,000 times)
    if not path.startswith(os.path.join(root, "")):  # noqa: PTH118
        raise _BadRowError("leaves-root", f"{printable(name)!r} leads out of the table's folder")
    try:
        os.stat(path)  # noqa: PTH116
    except OSError as error:
        raise _BadRowError(
            "missing-image", f"{printable(name)!r}: {error.strerror or 'no such file'}"
        ) from None
    return Path(path)


def _targets(
    rows: Sequence[_Row], columns: _Columns, where: str, few: bool
) -> tuple[
    TargetKind,
    tuple[str, ...],
    tuple[str, ...] | tuple[tuple[str, ...], ...] | tuple[tuple[float, ...], ...],
    list[Fault],
]:
    """Kind, names, targets, remarks."""
    if columns.kind == "labels":
        labels = tuple(_split_labels(row.cells[0]) for row in rows)
        # One label is a question with two answers.
        known, faults = _matched(rows, labels, where, 0 if few else 1)
        return "labels", tuple(sorted(known)), labels, faults
    if columns.kind == "values":
        return "numbers", columns.names, _numbers(rows, where), []
    cells = [row.cells[0] for row in rows]
    numeric = [_NUMBER.fullmatch(cell) is not None for cell in cells]
    if all(numeric) and not all(map(_WHOLE.fullmatch, cells)):
        return "numbers", columns.names, _numbers(rows, where), []
    if any(numeric) and not all(numeric):
        name, number = rows[numeric.index(False)], rows[numeric.index(True)]
        raise DataError(
            f"{where}: expected names or numbers in the column {columns.names[0]}, found both: "
            f"{printable(name.cells[0])!r} in line {name.line}, {number.cells[0]} in line "
            f"{number.line}",
            "write all classes as names, or repair the number",
        )
    names = tuple(map(printable, cells))
    known, faults = _matched(rows, tuple((name,) for name in names), where, 1 if few else 2)
    if all(numeric):
        values = {int(name) for name in known}
        if len(values) < len(known):
            raise DataError(
                f"{where}: the column {columns.names[0]} writes one number in several ways",
                "write each class in one way: 1, not also 01 or +1",
            )
        return "class", tuple(sorted(known, key=int)), names, faults
    return "class", tuple(sorted(known)), names, faults


def _split_labels(cell: str) -> tuple[str, ...]:
    """Names in a cell, each once, in the order given.

    >>> _split_labels("cat | dog;cat"), _split_labels("")
    (('cat', 'dog'), ())
    """
    names = (printable(name.strip()) for name in re.split(r"[|;]", cell))
    return tuple(dict.fromkeys(name for name in names if name))


def _matched(
    rows: Sequence[_Row], labels: Sequence[tuple[str, ...]], where: str, least: int
) -> tuple[set[str], list[Fault]]:
    found: dict[str, set[str]] = {}
    for row, names in zip(rows, labels, strict=True):
        found.setdefault(row.split, set()).update(names)
    return match_classes(found, where, "csv", least=least)


def _numbers(rows: Sequence[_Row], where: str) -> tuple[tuple[float, ...], ...]:
    table = []
    for row in rows:
        for cell in row.cells:
            if not _NUMBER.fullmatch(cell) or not math.isfinite(float(cell)):
                raise DataError(
                    f"{where}, line {row.line}: expected a finite number, found "
                    f"{printable(cell)!r}",
                    "numbers are written like 12, -0.5 or 1e3; leave out rows without one",
                )
        table.append(tuple(map(float, row.cells)))
    return tuple(table)
