"""OpenRouter's `plugins` and `transforms`: which of them are ours to do, and whether their entries make sense.

Only context-compression concerns routing. The others are OpenRouter's own services: they are judged no further than
their name, and go to OpenRouter's Endpoints as they are. https://openrouter.ai/docs/guides/features/plugins
"""

from typing import Any, Final, NoReturn, cast

from msgspec import Struct

from gateway.config.complaints import did_you_mean
from gateway.errors import InvalidRequestError
from providers.messages import ChatRequest
from providers.parameters import COMPRESSION

MIDDLE_OUT: Final = "middle-out"
PLUGINS_MAX: Final = 32
"""Entries of `plugins`, and of `transforms`."""
PLUGINS: Final = (
    COMPRESSION,
    "web",
    "web-fetch",
    "file-parser",
    "response-healing",
    "moderation",
    "auto-router",
    "pareto-router",
    "fusion",
)
_SHOWN_CHARS: Final = 100


class Plugins(Struct, frozen=True, gc=False):
    """What the client wants done to its request."""

    compress: bool | None = None
    """Whether the middle may be cut out of a prompt that is too long; None: the client left it to the Route."""


NO_PLUGINS: Final = Plugins()


def read_plugins(request: ChatRequest) -> Plugins:
    """What of the request's plugins is ours to do. `plugins` wins over the older `transforms`.

    Raises:
        InvalidRequestError: An entry makes no sense; `param` names it, as in `plugins[0].id`.
    """
    if request.plugins is None and request.transforms is None:
        return NO_PLUGINS
    compress = _transforms(request.transforms)
    plugins = request.plugins or []
    if len(plugins) > PLUGINS_MAX:
        _refuse("plugins", f"it has {len(plugins)} entries", f"name at most {PLUGINS_MAX}")
    for position, plugin in enumerate(plugins):
        where = f"plugins[{position}]"
        if not isinstance(plugin, dict):
            _refuse(where, "it is not an object", 'write {"id": "context-compression"}')
        entry = cast("dict[str, Any]", plugin)
        name = entry.get("id")
        if not isinstance(name, str):
            _refuse(f"{where}.id", "it is missing, or not text", f"write one of {', '.join(PLUGINS)}")
        if name not in PLUGINS:
            what = f"{name[:_SHOWN_CHARS]!r} is not known{did_you_mean(name, PLUGINS)}"
            _refuse(f"{where}.id", what, f"write one of {', '.join(PLUGINS)}")
        if name == COMPRESSION:
            compress = _compression(entry, where)
    return NO_PLUGINS if compress is None else Plugins(compress)


def _compression(entry: dict[str, Any], where: str) -> bool:
    engine, enabled = entry.get("engine"), entry.get("enabled")
    if engine is not None and engine != MIDDLE_OUT:
        _refuse(f"{where}.engine", "no engine is called so", f"write {MIDDLE_OUT}, or leave it out")
    if enabled is not None and not isinstance(enabled, bool):
        _refuse(f"{where}.enabled", "it is neither true nor false", "write true or false, without quotes")
    return enabled is not False


def _transforms(names: list[str] | None) -> bool | None:
    """Whether cutting is asked for in the older spelling, where an empty list forbids it."""
    if names is None:
        return None
    for position, name in enumerate(names[: PLUGINS_MAX + 1]):
        if name != MIDDLE_OUT:
            what = f"{name[:_SHOWN_CHARS]!r} is not known"
            _refuse(f"transforms[{position}]", what, f"write {MIDDLE_OUT}: it is the only one")
    return bool(names)


def _refuse(where: str, what: str, fix: str) -> NoReturn:
    raise InvalidRequestError(f"{where}: {what}; {fix}", param=where)
