"""A lazy Arrow source for DuckDB, pulled on DuckDB's own threads.

DuckDB asks a `pyarrow.dataset.Dataset` for ``.schema`` while it binds and for
``.scanner(columns, filter).to_reader()`` when it executes. A scanner made from a Python
generator keeps Arrow's read-ahead threads running it: aborts and hangs. So `scanner()`
here returns an object whose reader is an ``ArrowArrayStream`` of our own, whose error
text is exactly the exception's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Generator, Sequence
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rasteret_sql.duck.callbacks import CALLBACKS, OWED, RUNNING
from rasteret_sql.grid.proj_context import keep_context

Batches = Generator[pa.RecordBatch, None, None]
OpenScan = Callable[[list[str], "pc.Expression | None"], Batches]

_EIO = 5
_ARRAY_BYTES = 80  # sizeof(struct ArrowArray)


class LazySource(ds.Dataset):  # type: ignore[misc]  # pyarrow has no types
    """What DuckDB scans: a schema now, batches when it executes.

    Args:
        schema: Columns of a scan that asks for all of them.
        open_scan: Called once per execution with the columns asked for, in order, and the
            pushed filter; yields batches that hold exactly those columns.
        on_error: Told the exception that ended a scan.
        owner: Whose stream it is, for `n_pulling` and `n_exported`.
        delivered: The columns as batches hold them; default: ``schema``.
    """

    def __new__(cls, *_args: object) -> Self:
        """Skip Dataset's own constructor, which refuses subclasses."""
        return super().__new__(cls)  # type: ignore[no-any-return]

    def __init__(
        self,
        schema: pa.Schema,
        open_scan: OpenScan,
        on_error: Callable[[BaseException], None],
        owner: object = None,
        delivered: pa.Schema | None = None,
    ) -> None:
        self._lazy_schema = schema
        self._delivered = schema if delivered is None else delivered
        self._open_scan = open_scan
        self._on_error = on_error
        self._owner = owner

    def renew(self, open_scan: OpenScan) -> None:
        """From now on, open scans by what was bound last."""
        self._open_scan = open_scan

    @property
    def schema(self) -> pa.Schema:
        """All columns."""
        return self._lazy_schema

    def scanner(
        self,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,  # noqa: A002 (DuckDB passes it by this name)
        **_options: object,
    ) -> _Scanner:
        """Start one execution; no work is done before the first batch is pulled."""
        names = list(columns) if columns is not None else list(self._lazy_schema.names)
        schema = pa.schema([self._delivered.field(name) for name in names])
        return _Scanner(schema, self._open_scan(names, filter), self._on_error, self._owner)


class _Scanner:
    def __init__(
        self,
        schema: pa.Schema,
        batches: Batches,
        on_error: Callable[[BaseException], None],
        owner: object,
    ) -> None:
        self.projected_schema = schema
        self._arguments = (schema, batches, on_error, owner)

    def to_reader(self) -> _CStream:
        return _CStream(*self._arguments)


class _StreamStruct(ctypes.Structure):
    """Arrow C stream interface, ``struct ArrowArrayStream``."""


_GET = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_StreamStruct), ctypes.c_void_p)
_LAST_ERROR = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_StreamStruct))
_RELEASE = ctypes.CFUNCTYPE(None, ctypes.POINTER(_StreamStruct))

_StreamStruct._fields_ = [
    ("get_schema", _GET),
    ("get_next", _GET),
    ("get_last_error", _LAST_ERROR),
    ("release", _RELEASE),
    ("private_data", ctypes.c_void_p),
]


def is_ending() -> bool:
    """Whether DuckDB pulls a stream, has yet to release one that failed, or calls a function."""
    streams = list(_CStream._exported.values())  # noqa: SLF001
    return bool(RUNNING) or any(one.is_pulling or one.is_failed for one in streams)


def n_pulling(is_mine: Callable[[object], bool]) -> int:
    """How many threads of DuckDB wait for a batch of a stream whose owner is mine."""
    return sum(stream.is_pulling for stream in _streams_of(is_mine))


def n_exported(is_mine: Callable[[object], bool]) -> int:
    """How many streams whose owner is mine DuckDB holds, also of half-read results."""
    return len(_streams_of(is_mine))


def _streams_of(is_mine: Callable[[object], bool]) -> list[_CStream]:
    return [one for one in list(_CStream._exported.values()) if is_mine(one.owner)]  # noqa: SLF001


class _CStream:
    """A generator of batches as an ``ArrowArrayStream``.

    A scan that is stopped ends with an error, never with an end of stream: whoever still
    reads would take the rows so far for all rows.
    """

    _exported: dict[int, _CStream] = {}  # noqa: RUF012 (alive until DuckDB releases them)

    def __init__(
        self,
        schema: pa.Schema,
        batches: Batches,
        on_error: Callable[[BaseException], None],
        owner: object,
    ) -> None:
        self.owner = owner
        self.is_pulling = False
        self.is_failed = False
        self._schema = schema
        self._batches = batches
        self._on_error = on_error
        self._error = ctypes.create_string_buffer(b"")
        self._callbacks = (
            _GET(self._get_schema),
            _GET(self._get_next),
            _LAST_ERROR(self._get_last_error),
            _RELEASE(self._release),
        )

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Export through the Arrow PyCapsule interface."""
        self._struct = _StreamStruct()
        self._export_to_c(ctypes.addressof(self._struct))
        new = ctypes.pythonapi.PyCapsule_New
        new.restype = ctypes.py_object
        new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self._struct), b"arrow_array_stream", None)

    def _export_to_c(self, address: int) -> None:
        struct = _StreamStruct.from_address(address)
        struct.get_schema, struct.get_next, struct.get_last_error, struct.release = self._callbacks
        self._exported[id(self)] = self

    def _get_schema(self, _stream: object, out: int) -> int:
        self._schema._export_to_c(out)  # noqa: SLF001 (pyarrow's C data interface)
        return 0

    def _get_next(self, _stream: object, out: int) -> int:
        self.is_pulling = True
        code = 0
        try:
            self._put_next(out)
        except BaseException as error:  # noqa: BLE001 (the only way out is the C error text)
            self._on_error(error)
            text = " ".join(str(error).split()) or type(error).__name__
            self._error = ctypes.create_string_buffer(text.encode("utf-8", "replace"))
            self.is_failed = True
            code = _EIO
        self.is_pulling = False
        return code

    def _put_next(self, out: int) -> None:
        try:
            batch = next(self._batches, None)
        finally:
            keep_context()
        if batch is None:
            ctypes.memset(out, 0, _ARRAY_BYTES)
        else:
            batch._export_to_c(out)  # noqa: SLF001

    def _get_last_error(self, _stream: object) -> int:
        return ctypes.addressof(self._error)

    def _release(self, stream: object) -> None:
        stream.contents.release = _RELEASE()  # type: ignore[attr-defined]
        self._exported.pop(id(self), None)
        self._batches.close()
        if OWED.is_owed and not is_ending():
            OWED.is_owed = False
            OWED.send  # noqa: B018 (see there)


CALLBACKS.update(
    callback.__code__
    for callback in (
        _CStream._get_schema,  # noqa: SLF001
        _CStream._get_next,  # noqa: SLF001
        _CStream._get_last_error,  # noqa: SLF001
        _CStream._release,  # noqa: SLF001
    )
)
