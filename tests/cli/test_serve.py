"""`serve` hands its options on; the server itself is tested elsewhere."""

from __future__ import annotations

import json

import pytest

from rasteret_sql.errors import InputError


@pytest.fixture
def calls(monkeypatch):
    server = pytest.importorskip("rasteret_sql.serve")
    made = []
    monkeypatch.setattr(server, "serve", lambda **options: made.append(options))
    return made


def test_options_reach_the_server(command, calls, tmp_path):
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({"ann": "ann-secret"}))
    done = command(
        *("serve", "--workspace-dir", tmp_path, "--port", 9000, "--tokens", tokens),
        *("--time-limit-seconds", 2, "--allow-building", "--http", 8080),
    )
    assert done.exit_code == 0, done.output
    assert calls == [
        {
            "workspace": tmp_path,
            "database": None,
            "host": "localhost",
            "port": 9000,
            "tokens": {"ann": "ann-secret"},
            "time_limit_seconds": 2.0,
            "allow_network": False,
            "allow_building": True,
            "http_port": 8080,
        }
    ]


def test_a_bad_token_file_is_a_usage_error_that_does_not_show_it(command, calls, tmp_path):
    tokens = tmp_path / "tokens.json"
    tokens.write_text('["ann-secret"')
    done = command("serve", "--tokens", tokens)
    assert done.exit_code == 2
    assert "ann-secret" not in done.output
    assert calls == []


def test_its_errors_are_one_line(command, monkeypatch):
    server = pytest.importorskip("rasteret_sql.serve")

    def refuse(**_options):
        raise InputError.expected("host", "localhost", "0.0.0.0", "or set allow_network")

    monkeypatch.setattr(server, "serve", refuse)
    done = command("serve", "--host", "0.0.0.0")
    assert (done.exit_code, done.stderr) == (
        1,
        "error: host: expected localhost, got '0.0.0.0'; or set allow_network\n",
    )
