"""A server tells writing functions by their declaration, whatever they are called."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from rasteret_sql.duck import functions as _all  # noqa: F401 (declares them)
from rasteret_sql.duck.calls import Call, Sql
from rasteret_sql.duck.declarations import FUNCTIONS
from rasteret_sql.errors import AccessDeniedError
from rasteret_sql.serve.rules import confined

WRITING = {
    "rasteret_build",
    "rasteret_build_stac",
    "rasteret_build_table",
    "rasteret_drop",
    "rasteret_export",
    "rasteret_load",
    "rasteret_refresh",
    "rasteret_register_dataset",
    "rasteret_unregister_dataset",
}
NO_CALL = cast("Call", None)


def bind_nothing(_call, **_arguments):
    return Sql("SELECT 1")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_that_writes_is_declared_so_and_refused(name):
    function = replace(FUNCTIONS[name], bind=bind_nothing)
    assert function.writes == (name in WRITING)
    assert confined(function, may_build=True).bind(NO_CALL) == Sql("SELECT 1")
    if function.writes:
        with pytest.raises(AccessDeniedError, match=f"{name}: expected a function that reads"):
            confined(function, may_build=False).bind(NO_CALL)
    else:
        assert confined(function, may_build=False).bind(NO_CALL) == Sql("SELECT 1")


@pytest.mark.parametrize("writes", [True, False])
def test_a_name_says_nothing(writes):
    for name in ("rasteret_describe", "rasteret_build_index", "quiet"):
        made = replace(FUNCTIONS["rasteret_describe"], name=name, bind=bind_nothing, writes=writes)
        if writes:
            with pytest.raises(AccessDeniedError):
                confined(made, may_build=False).bind(NO_CALL)
        else:
            assert confined(made, may_build=False).bind(NO_CALL) == Sql("SELECT 1")


@pytest.mark.parametrize("may_build", [True, False])
def test_a_workspace_of_the_clients_own_is_refused(may_build):
    reads = replace(FUNCTIONS["rasteret_describe"], bind=bind_nothing)
    with pytest.raises(AccessDeniedError, match="workspace: expected the server's own"):
        confined(reads, may_build=may_build).bind(NO_CALL, workspace="/tmp/elsewhere")
