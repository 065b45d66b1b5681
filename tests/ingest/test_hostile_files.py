"""One file or one odd column never ends a build, and never shows a text of Python's."""

from __future__ import annotations

import struct

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rasteret_sql.remote import headers as remote_headers

pytestmark = pytest.mark.any_duckdb

ENTRIES = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (273, 4, 1, 400), (279, 4, 1, 4096)]


@pytest.fixture
def con(cursor):
    """A cursor on an empty workspace."""
    return cursor


def tiff(*entries, tail=b""):
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    data = b"II*\0" + struct.pack("<I", 8) + body + bytes(4)
    return data.ljust(300, b"\0") + tail.ljust(100, b"\0") + bytes(4096)


HOSTILE = {
    "nan": tiff(*ENTRIES, (339, 12, 2, 300), tail=struct.pack("<2d", float("nan"), 1)),
    "inf": tiff(*ENTRIES, (338, 12, 1, 300), tail=struct.pack("<d", float("inf"))),
    "no int32": tiff(*ENTRIES, (292, 4, 1, 2**32 - 1)),  # T4Options, an INTEGER of the metadata
}


@pytest.fixture
def files(tmp_path):
    """A table of hostile files, and a good one at its end."""
    names = []
    for name, data in {**HOSTILE, "good": tiff(*ENTRIES)}.items():
        path = tmp_path / f"{name}.tif"
        path.write_bytes(data)
        names.append({"id": name, "url": str(path)})
    pq.write_table(pa.Table.from_pylist(names), tmp_path / "files.parquet")
    return str(tmp_path / "files.parquet")


BUILD = (
    "SELECT enriched, failed FROM rasteret_build_table("
    "'t', source := $p, href_column := 'url', bands := ['b'], enrich := true, force := true)"
)


def test_a_header_that_no_column_holds_is_a_row_of_errors(rows, files):
    assert rows(BUILD, {"p": files}) == [(3, 1)]
    found = rows("SELECT id, error FROM rasteret_errors('t') WHERE id IS NOT NULL")
    assert [name for name, _ in found] == ["no int32"]
    assert "TIFF header: expected values that can be" in found[0][1]
    assert rows("SELECT id FROM t WHERE b_metadata IS NULL") == [("no int32",)]


def test_whatever_a_parser_raises_is_the_fault_of_its_file(rows, files, monkeypatch):
    read = remote_headers.read_header

    def raise_for_the_good(fetch, *, start, file_size):
        header = read(fetch, start=start, file_size=file_size)
        if header.extra_samples == () and header.t4_options == 0:
            raise OverflowError("Python int too large to convert to C long")
        return header

    monkeypatch.setattr(remote_headers, "read_header", raise_for_the_good)
    assert rows(BUILD, {"p": files}) == [(0, 4)]
    errors = rows("SELECT error FROM rasteret_errors('t') WHERE id = 'good'")
    assert errors[0][0].startswith("TIFF header: expected values that can be, got 'OverflowError:")


METADATA = {"image_width": 64, "image_height": 64, "tile_width": 64, "tile_height": 64,
            "tile_offsets": [400], "tile_byte_counts": [4096], "dtype": "uint8"}  # fmt: skip
ODD_COLUMNS = {
    "no tile_width": {"b_metadata": {k: v for k, v in METADATA.items() if k != "tile_width"}},
    "no counts": {"b_metadata": {k: v for k, v in METADATA.items() if k != "tile_byte_counts"}},
    "no dtype": {"b_metadata": {k: v for k, v in METADATA.items() if k != "dtype"}},
    "dtype is a number": {"b_metadata": METADATA | {"dtype": 5}},
    "width is text": {"b_metadata": METADATA | {"tile_width": "64"}},
    "offsets are texts": {"b_metadata": METADATA | {"tile_offsets": ["400"]}},
    "assets are texts": {"assets": "a.tif"},
    "assets are texts by band": {"assets": {"b": "a.tif"}},
    "assets are numbers": {"assets": 5},
    "href is a number": {"assets": {"b": {"href": 7, "band_index": 0}}},
    "href is a list": {"assets": {"b": {"href": ["a.tif"], "band_index": 0}}},
    "index is text": {"assets": {"b": {"href": "a.tif", "band_index": "0"}}},
    "no href": {"assets": {"b": {"band_index": 0}}},
    "bbox is a list": {"bbox": [0.0, 0.0, 1.0, 1.0]},
    "bbox is text": {"bbox": "0,0,1,1"},
    "datetime is text": {"datetime": "2024-01-01"},
    "epsg is text": {"proj:epsg": "32633"},
    "id is a number": {"id": 5},
    "id is a struct": {"id": {"a": 5}},
}
BOX = {"xmin": 0.0, "ymin": 0.0, "xmax": 1.0, "ymax": 1.0}
ROW = {
    "id": "a", "datetime": None, "geometry": None, "bbox": BOX, "proj:epsg": 32633,
    "crs": "EPSG:32633", "assets": {"b": {"href": "gone.tif", "band_index": 0}},
    "b_metadata": METADATA,
}  # fmt: skip
CALLS = [
    "rasteret_describe('{p}')",
    "rasteret_records('{p}')",
    "rasteret_load('v', path := '{p}', force := true)",
    "rasteret_build_table('t', source := '{p}', enrich := true, force := true)",
    "rasteret_validate('v')",
    "rasteret_validate('t')",
    "rasteret_refresh('t')",
    "rasteret_export('{p}', path := '{folder}', force := true)",
    "rasteret_enrich('{p}', bands := ['b'])",
]
PYTHON = ("Traceback", "KeyError", "TypeError", "AttributeError", "object has no", "ArrowTypeError",
          "ArrowInvalid", "ArrowNotImplemented", "SystemError", "not subscriptable", "argument ",
          "unsupported operand", "No match for FieldRef", "Field ", "Unsupported cast")  # fmt: skip


@pytest.mark.parametrize("name", ODD_COLUMNS)
def test_columns_that_are_not_ours_are_named(con, tmp_path, name):
    path = tmp_path / "odd.parquet"
    row = ROW | ODD_COLUMNS[name]
    table = pa.Table.from_pylist([row])
    for column, kind in {"datetime": pa.timestamp("us"), "geometry": pa.binary()}.items():
        if row[column] is None:
            at = table.schema.get_field_index(column)
            table = table.set_column(at, column, pa.nulls(1, kind))
    pq.write_table(table, path)
    for call in CALLS:
        query = f"FROM {call.format(p=path, folder=tmp_path / 'out')}"
        try:
            con.execute(query).fetchall()
        except (duckdb.Error, RuntimeError) as error:
            text = str(error)
            assert ": expected " in text or "Catalog Error" in text or "cast" in text.lower(), query
            assert not [word for word in PYTHON if word in text.split("LINE 1")[0]], (query, text)
