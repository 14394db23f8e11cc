"""Where settings come from: initializationOptions, workspace/configuration, didChangeConfiguration.

What they mean and which are right is `config`'s to say. A wrong one is reported and the default kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lsp_charrnn.config import Settings, parse_settings

SECTION: Final = "lspCharrnn"

# What an editor's client keeps for itself under the same section, and the token that `access` has looked at: no
# settings, and no mistakes.
_CLIENT_ONLY: Final = frozenset({"command", "server", "token", "trace"})


def read_settings(data: object, base: Settings | None = None) -> tuple[Settings, list[str]]:
    """Return the settings in what a client sent, over `base`, and a sentence for each entry that was refused.

    `data` holds the settings themselves, flat or nested, or all of them under the section's name (which may also stand
    before each single one: "lspCharrnn.decode.lanes").
    """
    if data == []:  # what an empty Lua table is sent as
        data = None
    return parse_settings(_unwrapped(data), base)


def _unwrapped(data: object) -> object:
    if not isinstance(data, Mapping):
        return data
    if SECTION in data:
        inner = data[SECTION]
        if not isinstance(inner, Mapping):
            return inner
        # A client that sends all of its settings sends other servers' too.
        return _without_client_settings(inner)
    named = {key: value for key, value in data.items() if str(key).startswith(f"{SECTION}.")}
    if named:
        return _without_client_settings({key[len(SECTION) + 1 :]: value for key, value in named.items()})
    return _without_client_settings(data)


def _without_client_settings(data: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in data.items() if str(key).partition(".")[0] not in _CLIENT_ONLY}
