"""Tables that grow: CSV, and Parquet in parts. Floor 5, room verbs; imports floor 0.

Both say what of them is sure to be on the disk (`commit`), and begin again from there whatever a
killed process has left behind it. pyarrow is imported where a Parquet table is opened.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from neocog.errors import ConfigError, RunError
from neocog.files import clear_leftovers, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neocog.verbs.answer_rows import Columns, Row

__all__ = ["AGAIN", "CsvTable", "ParquetTable", "Table"]

AGAIN = "begin anew with --again, or write to another file"
CELLS = 1 << 20
"""Values that a part of a Parquet table holds at most, which are in memory until it is written."""
ROWS = 1 << 15
"""Rows of a part at most."""


class Table(Protocol):
    """A table that grows."""

    seconds: float
    """How often it should be committed: what a crash may cost."""

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows.

        Raises:
            RunError: a full disk and the like.
        """

    @property
    def full(self) -> bool:
        """Whether it should be committed for its size."""

    def commit(self) -> int:
        """Have all rows on the disk, and give how much there is of it: what opens it again.

        Raises:
            RunError: a full disk and the like.
        """

    def close(self) -> None:
        """Let go of it; what was not committed may be lost."""


class CsvTable:
    """UTF-8 with a header, lines that end with LF, quoted where needed (RFC 4180).

    Args:
        path: the file.
        columns: of the rows.
        kept: bytes of the file that stay; all behind them is cut off. 0: it begins anew.

    Raises:
        RunError: the file cannot be written, or is not what it was.
    """

    seconds = 5.0

    def __init__(self, path: Path, columns: Columns, kept: int = 0) -> None:
        self.path = path
        self.columns = columns
        self.full = False
        try:
            # Binary: the place where a line begins is a number of bytes.
            self._file = path.open("r+b" if kept else "wb")
        except OSError as error:
            raise self._failed(error) from error
        header = _text([columns.names])
        try:
            if not kept:
                self._file.write(header)
                return
            found = self._file.read(len(header))
            self._file.seek(kept - 1)
            if found != header or self._file.read(1) != b"\n":
                raise RunError(f"{path} is no longer what was written there", AGAIN)
            self._file.truncate(kept)
        except OSError as error:
            raise self._failed(error) from error
        except RunError:
            self.close()
            raise

    def add(self, rows: Sequence[Row]) -> None:
        """See `Table`."""
        nothing = [None] * len(self.columns.numbers)
        lines = (
            [*plain, *(nothing if numbers is None else numbers.tolist())] for plain, numbers in rows
        )
        try:
            self._file.write(_text(lines))
        except OSError as error:
            raise self._failed(error) from error

    def commit(self) -> int:
        """See `Table`; bytes."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            return self._file.tell()
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """See `Table`."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _failed(self, error: OSError) -> RunError:
        return RunError(
            f"cannot write {self.path}: {error.strerror or error}",
            "make room or mend the permissions; the same command then goes on where it stopped",
        )


def _text(lines: Iterable[Sequence[Any]]) -> bytes:
    """Lines of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


class ParquetTable:
    """A folder of `part-00000.parquet`, …, each written whole or not at all, which every reader of
    Parquet takes as one table.

    Args:
        path: the folder.
        columns: of the rows.
        about: what stands in the metadata of the schema, by name.
        kept: parts that stay; later ones are deleted. 0: it begins anew.

    Raises:
        ConfigError: pyarrow is not installed.
        RunError: the folder cannot be written, or is not what it was.
    """

    seconds = 30.0

    def __init__(
        self, path: Path, columns: Columns, about: Mapping[str, str], kept: int = 0
    ) -> None:
        try:
            import pyarrow as arrow
        except ImportError as error:
            raise ConfigError(
                "Parquet needs pyarrow, which is not installed",
                'pip install "neocog[parquet]", or write CSV: --to FILE.csv',
            ) from error
        self.path = path
        self.columns = columns
        self.parts = kept
        self._rows: list[Row] = []
        self._most = max(1, min(ROWS, CELLS // len(columns.names)))
        kinds = {"probability": arrow.float32()}
        number = arrow.float64() if columns.wide else arrow.float32()
        fields = [(name, kinds.get(name, arrow.string())) for name in columns.plain]
        fields += [(name, number) for name in columns.numbers]
        self._schema = arrow.schema(fields, metadata=dict(about))
        try:
            path.mkdir(parents=True, exist_ok=True)
            for part in path.glob("part-*.parquet"):
                if part.name >= self._part(kept).name:
                    part.unlink()
        except OSError as error:
            raise RunError(
                f"cannot write {path}: {error.strerror or error}",
                "mend the permissions, or write to another file",
            ) from error
        clear_leftovers(path)
        if any(not self._part(number).is_file() for number in range(kept)):
            raise RunError(f"{path} no longer holds what was written there", AGAIN)

    def _part(self, number: int) -> Path:
        return self.path / f"part-{number:05d}.parquet"

    def add(self, rows: Sequence[Row]) -> None:
        """See `Table`."""
        # Copies: a row of a batch's numbers would keep the whole batch.
        self._rows += [(plain, None if some is None else some.copy()) for plain, some in rows]

    @property
    def full(self) -> bool:
        """See `Table`."""
        return len(self._rows) >= self._most

    def commit(self) -> int:
        """See `Table`; parts."""
        if self._rows:
            write_atomic(self._part(self.parts), self._packed())
            self.parts += 1
            self._rows = []
        return self.parts

    def _packed(self) -> bytes:
        """The rows as one Parquet file."""
        import pyarrow as arrow
        from pyarrow import parquet

        texts = list(zip(*(plain for plain, _ in self._rows), strict=True))
        arrays = [
            arrow.array(values, field.type)
            for values, field in zip(texts, self._schema, strict=False)
        ]
        if self.columns.numbers:
            missing = np.array([some is None for _, some in self._rows])
            nothing: NDArray[Any] = np.zeros(
                len(self.columns.numbers), np.float64 if self.columns.wide else np.float32
            )
            block = np.stack([nothing if some is None else some for _, some in self._rows])
            arrays += [
                arrow.array(np.ascontiguousarray(column), mask=missing) for column in block.T
            ]
        target = arrow.BufferOutputStream()
        table = arrow.Table.from_arrays(arrays, schema=self._schema)
        parquet.write_table(table, target, compression="zstd")
        packed: bytes = target.getvalue().to_pybytes()
        return packed

    def close(self) -> None:
        """See `Table`."""
        self._rows = []
