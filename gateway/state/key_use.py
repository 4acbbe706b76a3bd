"""When each client key was last used, as the roll-ups of the ledger say: to the hour, and after two days to the day."""

import sqlite3
from pathlib import Path
from typing import Final

from gateway.state.connection import open_reader
from gateway.state.errors import translate

HOUR_S: Final = 3600
DAY_S: Final = 86_400
HOURLY_FOR_S: Final = 2 * DAY_S
"""So long it is known to the hour; behind that, where there is much more to look at, to the day."""

_HOURS: Final = "SELECT name, max(hour) * 3600 FROM spend_hour WHERE by = 'key' AND hour >= ? AND name <> '' GROUP BY 1"
_DAYS: Final = "SELECT name, max(day) * 86400 FROM spend_day WHERE by = 'key' AND day < ? AND name <> '' GROUP BY 1"
_AGAIN: Final = "SELECT key_id, max(hour) * 3600 FROM cache_hour WHERE key_id <> '' GROUP BY 1"


def read_last_used(path: Path, now_unix_s: float) -> dict[str, int]:
    """By key, the beginning of the hour or day of its last answer, in seconds of Unix time. Blocks.

    Raises:
        StoreError: The file cannot be read.
    """
    if not path.exists():
        return {}
    connection = open_reader(path)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        found: dict[str, int] = {}
        first_day = int(now_unix_s - HOURLY_FOR_S) // DAY_S
        for table, statement, values in (
            ("spend_day", _DAYS, (first_day,)),
            ("spend_hour", _HOURS, (first_day * DAY_S // HOUR_S,)),
            ("cache_hour", _AGAIN, ()),
        ):
            if table in tables:
                for name, unix_s in connection.execute(statement, values):
                    found[name] = max(unix_s, found.get(name, 0))
    except sqlite3.Error as error:
        raise translate(error) from error
    else:
        return found
    finally:
        connection.close()
