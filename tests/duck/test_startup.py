"""What it takes to connect: modules and statements are counted, not seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rasteret_sql
from examples import examples
from rasteret_sql.duck.connection import Instance
from rasteret_sql.duck.names import IS_DUCKDB_2
from rasteret_sql.duck.udfs import UDFS

HEAVY = (
    "asyncio",
    "click",
    "filelock",
    "imagecodecs",
    "obstore",
    "pandas",
    "pyarrow.compute",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pyproj",
    "rasteret_sql.duck.calls",
    "rasteret_sql.duck.functions",
    "rasteret_sql.duck.runtime",
    "rasteret_sql.reading",
    "rasteret_sql.tiff",
    "shapely",
    "tifffile",
)
"""None is needed before the first call of a function."""

CONNECT = """
import sys
import rasteret_sql
con = rasteret_sql.connect(workspace={workspace!r})
con.interrupt()
con.cursor().close()
con.close()
con = rasteret_sql.connect(workspace={workspace!r})
cursor = con.cursor()
assert cursor.execute("SELECT rasteret_ndvi(1000, 3000)").fetchall() == [(0.5,)]
print(*sorted(set({heavy!r}) & set(sys.modules)))
assert cursor.execute("FROM rasteret_collections()").fetchall() == []
con.interrupt()
con.close()
print("rasteret_sql.duck.functions" in sys.modules)
"""


SLOW_IMPORT = """
import importlib.abc, sys, threading, time
import duckdb, rasteret_sql

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "rasteret_sql.duck.functions":
            importing.set()
            time.sleep(1)

def call():
    try:
        con.execute("FROM rasteret_collections()").fetchall()
    except duckdb.Error:
        pass
    print("ended", flush=True)

importing = threading.Event()
sys.meta_path.insert(0, Slow())
con = rasteret_sql.connect(workspace={workspace!r})
thread = threading.Thread(target=call, daemon=True)
thread.start()
importing.wait()
if {closes}:
    con.close()
    thread.join(20)
    print("closed", flush=True)
"""


INTERRUPTED_IMPORT = """
import importlib.abc, os, signal, sys
import duckdb, rasteret_sql

class Press(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Press())
con = rasteret_sql.connect(workspace={workspace!r})
try:
    con.execute("FROM rasteret_collections()").fetchall()
except (duckdb.Error, RuntimeError, KeyboardInterrupt) as error:
    print("KeyboardInterrupt" in repr(error))
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
print({module!r} in sys.modules)
print(con.execute("FROM rasteret_collections()").fetchall())
"""


MODULES = ["pandas._libs", "shapely.lib", "rasteret_sql.duck.functions.maintenance"]
MODULES = examples(MODULES[1 - IS_DUCKDB_2 :: 2], MODULES)


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_only_a_call_imports_what_reads_and_builds(tmp_path):
    loaded, is_loaded_by_a_call = run(CONNECT.format(workspace=str(tmp_path), heavy=HEAVY))
    assert loaded == ""
    assert is_loaded_by_a_call == "True"


def test_views_of_collections_import_nothing_that_reads_pixels(scenes, tmp_path):
    items = scenes / "items.json"
    with rasteret_sql.connect(workspace=tmp_path) as con:
        con.execute("FROM rasteret_build_stac('s2', stac_api := $items)", {"items": str(items)})
        n_records = con.execute("SELECT count(*) FROM s2").fetchall()[0][0]
    code = (
        "import rasteret_sql, sys; con = rasteret_sql.connect(workspace={!r}); "
        "print(con.execute('SELECT count(*) FROM s2').fetchall()[0][0], "
        "*sorted(set({!r}) & set(sys.modules)))"
    )
    heavy = ("imagecodecs", "pandas", "pyproj", "shapely", "rasteret_sql.duck.runtime")
    assert run(code.format(str(tmp_path), heavy)) == [str(n_records)]


@pytest.mark.parametrize(("closes", "printed"), [(True, {"ended", "closed"}), (False, {"ended"})])
def test_the_end_waits_for_a_first_call_that_imports(tmp_path, closes, printed):
    lines = run(SLOW_IMPORT.format(workspace=str(tmp_path), closes=closes))
    assert printed >= set(lines)
    assert ("closed" in lines) == closes


@pytest.mark.parametrize("module", MODULES)
def test_ctrl_c_in_the_first_call_ends_the_statement_when_all_is_imported(tmp_path, module):
    code = INTERRUPTED_IMPORT.format(workspace=str(tmp_path), module=module)
    assert run(code) == ["True", "True", "True", "[]"]


@pytest.mark.any_duckdb
def test_every_public_name_is_there():
    code = "import rasteret_sql; print(*(n for n in {!r} if getattr(rasteret_sql, n) is None))"
    assert run(code.format(rasteret_sql.__all__)) == [""]
    assert set(rasteret_sql.__all__) <= set(dir(rasteret_sql))


def test_a_name_that_is_not_public_is_no_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'to_tiff'"):
        rasteret_sql.to_tiff  # noqa: B018 (the access is what fails)


@pytest.mark.parametrize("udf", UDFS, ids=lambda udf: udf.name)
def test_the_code_of_each_private_function_is_where_it_is_said_to_be(udf, tmp_path):
    assert udf.name.startswith("_rasteret_")
    assert callable(udf.load(Instance(tmp_path).runtime))
