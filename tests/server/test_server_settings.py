"""Where settings may stand in what a client sends. What they mean is tested with `config`."""

from __future__ import annotations

from typing import Any

import pytest

from lsp_charrnn.config import Settings
from lsp_charrnn.server.settings import read_settings


@pytest.mark.parametrize(
    "data",
    [
        {"decode": {"lanes": 3}},
        {"decode.lanes": 3},
        {"lspCharrnn": {"decode": {"lanes": 3}}, "pyright": {"lanes": 5}},
        {"lspCharrnn.decode.lanes": 3, "editor.fontSize": 12},
        {"lspCharrnn": {"decode": {"lanes": 3}, "trace": {"server": "verbose"}, "command": ["x"]}},
        {"lspCharrnn": {"decode.lanes": 3, "trace.server": "off", "server.path": "/bin/x"}},
    ],
)
def test_settings_are_found_wherever_clients_put_them(data: Any) -> None:
    assert read_settings(data) == (Settings(decode_lanes=3), [])


@pytest.mark.parametrize("data", [None, {}, [], {"lspCharrnn": None}, {"lspCharrnn": {}}])
def test_nothing_set_is_the_base(data: Any) -> None:
    base = Settings(model="mine")
    assert read_settings(data, base) == (base, [])


@pytest.mark.parametrize(
    "data", ["lanes", 3, [1], {"lspCharrnn": "x"}, {"lspCharrnn": {"decode": {"lanes": -1}}}, {"x": 1}]
)
def test_what_is_wrong_is_told_and_changes_nothing(data: Any) -> None:
    settings, problems = read_settings(data)
    assert settings == Settings()
    assert len(problems) == 1
