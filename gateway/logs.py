"""The log: lines for people, or one JSON object per line. Goes to standard error; says no prompt and no key.

What may be written is decided by type: texts and numbers that code of ours passes, our own errors, and of everything
else no more than what it is called. An error of somebody else's may quote anything, so its words are left out.
"""

import logging
import sqlite3
import ssl
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, Final, TextIO, cast

import msgspec

from gateway.config.operations import LogSettings
from gateway.config.secrets import Secret, mask_keys
from gateway.request_id import REQUEST_ID

LINE_MAX_CHARS: Final = 16_384
"""Of one event; the rest is cut off."""
FRAMES_MAX: Final = 30
"""Of a traceback, the innermost."""
CAUSES_MAX: Final = 5
ITEMS_MAX: Final = 50
OURS: Final = ("gateway", "providers", "local_backend")
_PLAIN: Final = (str, int, float, type(None), PurePath, Secret, datetime)
_SPEAKING: Final = (sqlite3.Error, ssl.SSLError, OSError, ImportError)
"""Errors of others that say nothing of what was asked."""
_encode: Final = msgspec.json.Encoder().encode


def begin(env: Mapping[str, str], title: str = "") -> None:
    """Set the log up as far as is known before the configuration is read, which has its say by `adopt`.

    Args:
        env: The environment.
        title: Which process speaks, where there are several.
    """
    set_up(LogSettings(format="json" if env.get("MIXGATE_LOG_FORMAT") == "json" else "text"), title=title)


def set_up(settings: LogSettings, stream: TextIO | None = None, *, title: str = "") -> None:
    """Let everything that is logged from now on be written so. Called again, it replaces what was before.

    Args:
        settings: Form and level. Libraries are heard from WARNING on, whatever ours is.
        stream: Where to; standard error by default.
        title: Which process speaks, where there are several.
    """
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one, _Handler)]:
        root.removeHandler(old)
    handler = _Handler(stream or sys.stderr)
    handler.title = title
    handler.setFormatter(JsonLines(title) if settings.format == "json" else TextLines(title))
    root.addHandler(handler)
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("mixgate").setLevel(level)


def adopt(settings: LogSettings) -> None:
    """The same, where this process' log is ours already: one that is embedded, as in a test, keeps its own."""
    for one in logging.getLogger().handlers:
        if isinstance(one, _Handler):
            set_up(settings, title=one.title)
            return


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, to be told from those of others."""

    title = ""


class TextLines(logging.Formatter):
    """Lines for people."""

    def __init__(self, title: str = "") -> None:
        super().__init__()
        self._title = title

    def format(self, record: logging.LogRecord) -> str:
        """The event, and below it how it came to an error."""
        when = datetime.fromtimestamp(record.created, UTC).astimezone()
        about = REQUEST_ID.get()
        head = f"{when:%Y-%m-%d %H:%M:%S},{int(record.msecs):03d} {record.levelname}"
        head += f" {self._title}:" if self._title else ""
        line = f"{head} {_tame(message_of(record))}{f' [{about}]' if about else ''}"
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            frames = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]))
            line += f"\nTraceback (innermost last):\n{frames}{'; because of '.join(map(_tame, _causes(error)))}"
        return line[:LINE_MAX_CHARS]


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    def __init__(self, title: str = "") -> None:
        super().__init__()
        self._title = title

    def format(self, record: logging.LogRecord) -> str:
        """`time`, `level`, `logger`, `message`; `process`, `request_id`, `error` and `facts` where there are any."""
        event: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message_of(record)[:LINE_MAX_CHARS],
        }
        if self._title:
            event["process"] = self._title
        if about := REQUEST_ID.get():
            event["request_id"] = about
        facts = getattr(record, "facts", None)
        if isinstance(facts, dict):
            event["facts"] = _value(cast("dict[str, Any]", facts))
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            frames = traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]
            event["error"] = {
                "causes": _causes(error),
                "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
            }
        return _encode(event).decode()


def _tame(text: str) -> str:
    """Words of others must neither look like an event of ours nor tell a terminal what to do."""
    if text.isprintable():
        return text
    shown = (one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode() for one in text)
    return "".join(shown).replace("\n", "\n    ")


def message_of(record: logging.LogRecord) -> str:
    """What is said, with nothing in it that may not be."""
    args = record.args
    try:
        if isinstance(args, Mapping):
            said = str(record.msg) % {name: shown(value) for name, value in args.items()}
        elif args:
            said = str(record.msg) % tuple(shown(value) for value in args)
        else:
            said = str(shown(record.msg))
    except (TypeError, ValueError):
        said = f"{record.msg} (what was to be filled in does not fit)"
    return mask_keys(said)


def shown(value: object) -> Any:
    """A value as the log may have it."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, BaseException):
        return words_of(value)
    if isinstance(value, (bytes, bytearray)):
        return f"<{len(value)} bytes>"
    if isinstance(value, (tuple, list, set, frozenset)):
        items = [*cast("tuple[object, ...]", value)][:ITEMS_MAX]
        return [shown(one) for one in items]
    return f"<{type(value).__name__}>"


def words_of(error: BaseException) -> str:
    """An error's words where they are fit to be read, else what it is called."""
    speaking = isinstance(error, _SPEAKING) or type(error).__module__.partition(".")[0] in OURS
    return str(error) if speaking else type(error).__name__


def _value(value: Any) -> Any:
    """The same for a fact, which JSON has to take too."""
    if isinstance(value, dict):
        return {str(name): _value(one) for name, one in cast("dict[object, object]", value).items()}
    found: object = shown(value)
    if isinstance(found, str):
        return mask_keys(found)
    plain = isinstance(found, (int, float, list, type(None)))
    return cast("Any", found) if plain else str(found)


def _causes(error: BaseException) -> list[str]:
    """The error and what it came from, the first first."""
    found: list[str] = []
    current: BaseException | None = error
    while current is not None and len(found) < CAUSES_MAX:
        words, name = mask_keys(words_of(current)), type(current).__name__
        found.append(name if words == name else f"{name}: {words}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return found
