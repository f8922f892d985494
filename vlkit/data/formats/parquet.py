"""Parquet files as the Hugging Face hub has them: images in a column, read by row group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from vlkit.errors import DataError, MissingPackage
from vlkit.files import file_state
from vlkit.foreign import check_size, parse_json

_KEPT_GROUPS = 2  # of rows in memory, a hundred images each as the hub writes them
_KEPT_FOOTERS = 128
_ROW_BYTES = 200  # that a row takes in memory at least, whatever it holds
_HUB = b"huggingface"
_TEXTS = ("string", "large_string")
_reading = Lock()  # of threads that want rows of one group the first reads it for all


@dataclass(frozen=True)
class ParquetCell:
    """The bytes of the image in one row, which are those of the column ``leaf`` (``image.bytes``)."""

    path: Path
    column: str
    leaf: str
    group: int
    row: int

    def __call__(self) -> bytes:
        """The encoded image.

        Raises:
            DataError: The cell is empty, or the file damaged.
        """
        with _reading:
            cells = _row_group(self.path, self.column, self.leaf, self.group, file_state(self.path))
        value = cells[self.row].as_py()
        raw = value.get("bytes") if isinstance(value, Mapping) else value
        if not raw:
            raise DataError(
                f"{self.path}: row {self.row} of group {self.group} holds no image, only {str(value)[:60]!r}"
            )
        return bytes(raw)


@dataclass(frozen=True)
class ParquetRows:
    """All rows of a file but for the images.

    Attributes:
        columns: Values by name; ``COLUMN.path`` for the names of images where they are known.
        cells: The image of each row.
        features: What the hub says of each column, by name (``{"label": {"names": [...], "_type": "ClassLabel"}}``).
        there: All columns that the file has.
    """

    columns: Mapping[str, Sequence[Any]]
    cells: tuple[ParquetCell, ...]
    features: Mapping[str, Any]
    there: tuple[str, ...] = ()


def read_rows(path: Path, *, images: Sequence[str], columns: Sequence[Sequence[str]]) -> ParquetRows:
    """Reads a file's columns; images are left where they are.

    Args:
        path: A parquet file.
        images: Names that the column of images may have.
        columns: For each further column, the names that it may have; the first one is what it is called here.

    Raises:
        MissingPackage: pyarrow is not installed.
        DataError: Missing, damaged, or without one of the columns.
    """
    parquet = _pyarrow()
    if not path.is_file():
        raise DataError(f"{path}: no such parquet file")
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            image = _column(path, schema.names, images)
            found = {names[0]: _column(path, schema.names, names) for names in columns}
            leaf, nested = _image_type(path, image, schema.field(image).type)
            paths = [f"{image}.path"] if "path" in nested else []
            texts = (*found.values(), *paths)
            sizes = _group_sizes(path, file.metadata)
            _check_size(path, file.metadata, texts, range(file.num_row_groups))
        # as dictionaries: a text that stands in many rows may be short in the file, and fill the memory as values
        flat = [column for column in found.values() if str(schema.field(column).type) in _TEXTS]
        with parquet.ParquetFile(path, read_dictionary=flat) as file:
            table = file.read(columns=list(texts))
            check_size(sum(map(_value_bytes, table.columns)), what=f"{path}: {', '.join(texts)}")
            metadata = schema.metadata or {}
    except OSError as error:  # pyarrow's ArrowInvalid is a ValueError, its reading errors are OSErrors
        raise DataError(f"cannot read {path}: {error}") from None
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read {path}: not a whole parquet file ({error}); get it anew") from None
    values = {name: table[column].to_pylist() for name, column in found.items()}
    if paths:
        values[f"{images[0]}.path"] = [(one or {}).get("path") for one in table[image].to_pylist()]
    cells = tuple(ParquetCell(path, image, leaf, group, row) for group, size in enumerate(sizes) for row in range(size))
    return ParquetRows(values, cells, _features(metadata.get(_HUB), found), tuple(schema.names))


def read_columns(path: Path, names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place (``FILE: row 3``) and values of each row, of those of the columns that are there; none of them is an image.

    Raises:
        MissingPackage: pyarrow is not installed.
        DataError: Missing or damaged.
    """
    parquet = _pyarrow()
    if not path.is_file():
        raise DataError(f"{path}: no such parquet file")
    try:
        with parquet.ParquetFile(path) as file:
            wanted = [name for name in names if name in file.schema_arrow.names]
            _group_sizes(path, file.metadata)
            _check_size(path, file.metadata, wanted, range(file.num_row_groups))
            table = file.read(columns=wanted)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read {path}: not a whole parquet file ({error}); get it anew") from None
    for number, row in enumerate(table.to_pylist()):
        yield f"{path}: row {number}", row


def _column(path: Path, there: Sequence[str], wanted: Sequence[str]) -> str:
    name = next((one for one in wanted if one in there), None)
    if name is None:
        raise DataError(f"{path}: no column {' or '.join(map(repr, wanted))}; there are: {', '.join(there)}")
    return name


def _image_type(path: Path, column: str, type_: Any) -> tuple[str, list[str]]:
    """The column that holds the images' bytes, and the names of what stands beside them.

    Raises:
        DataError: The column holds something else, such as the names of files.
    """
    from pyarrow import types

    nested = {one.name: one.type for one in type_} if types.is_struct(type_) else {}
    held = nested.get("bytes") if nested else type_
    if held is None or not (types.is_binary(held) or types.is_large_binary(held) or types.is_null(held)):
        raise DataError(
            f"{path}: column {column!r} holds {type_}; expected the bytes of images, or a struct with 'bytes'. For "
            f"names of files, take a table (.csv or .jsonl) or a folder of images"
        )
    return f"{column}.bytes" if nested else column, list(nested)


def _group_sizes(path: Path, footer: Any) -> list[int]:
    """How many rows each group has, by a footer that may say anything.

    Raises:
        DataError: More than fit into memory, or numbers that contradict each other.
    """
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    sizes = [group.num_rows for group in groups]
    values = [group.column(number).num_values for group in groups for number in range(group.num_columns)]
    check_size(_ROW_BYTES * max(sum(map(abs, sizes)), footer.num_rows), what=f"{path}: {footer.num_rows:,} rows")
    plain = all(footer.schema.column(number).max_repetition_level == 0 for number in range(footer.num_columns))
    rows = [group.num_rows for group in groups for _ in range(group.num_columns)]
    if min(sizes, default=0) < 0 or sum(sizes) != footer.num_rows or (plain and values != rows):
        raise DataError(
            f"cannot read {path}: its footer contradicts itself ({footer.num_rows:,} rows, {sum(sizes):,} in its "
            f"groups); get the file anew"
        )
    return sizes


def _check_size(path: Path, footer: Any, columns: Sequence[str], groups: Iterable[int]) -> None:
    """Refuses columns that take more memory than the limit."""
    wanted = tuple(f"{column}." for column in columns)
    chunks = (footer.row_group(group).column(number) for group in groups for number in range(footer.num_columns))
    size = sum(one.total_uncompressed_size for one in chunks if f"{one.path_in_schema}.".startswith(wanted))
    check_size(size, what=f"{path}: {', '.join(columns)}")


def _value_bytes(column: Any) -> int:
    """Bytes that the texts of a column take, each counted as often as it stands there; of lists it is not known."""
    from pyarrow import compute, types

    size = 0
    for part in column.chunks if types.is_dictionary(column.type) else ():
        if len(part.dictionary):
            lengths = compute.binary_length(part.dictionary).cast("int64")
            size += compute.sum(lengths.take(part.indices.drop_null())).as_py() or 0
    return size


def _features(raw: bytes | None, found: Mapping[str, str]) -> dict[str, Any]:
    try:
        features = parse_json(raw or b"{}", where="")["info"]["features"]
        return {name: features[column] for name, column in found.items() if column in features}
    except (DataError, KeyError, TypeError):
        return {}  # written by something else than the hub's tools


@lru_cache(maxsize=_KEPT_GROUPS)
def _row_group(path: Path, column: str, leaf: str, group: int, state: str) -> Any:
    """The column of one group of rows; a file of another ``state`` (``file_state``) is another one."""
    parquet = _pyarrow()
    try:
        footer = _footer(path, state)  # of many groups it takes longer to read than one of them
        _check_size(path, footer, [column], [group])
        # As a dictionary, an image that stands in many rows is one in memory.
        with parquet.ParquetFile(path, memory_map=True, metadata=footer, read_dictionary=[leaf]) as file:
            return file.read_row_group(group, columns=[column])[column]
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read {path}: row group {group} is damaged ({error}); get the file anew") from None


@lru_cache(maxsize=_KEPT_FOOTERS)
def _footer(path: Path, state: str) -> Any:
    return _pyarrow().read_metadata(path)


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingPackage("pyarrow", purpose="reading parquet files", extra="parquet") from None
    return pyarrow.parquet
