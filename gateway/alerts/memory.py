"""What was told already, kept over restarts: alerts.json in MIXGATE_HOME."""

import logging
import os
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

FILE_NAME: Final = "alerts.json"
TOLD_MAX: Final = 5_000
"""Things told that are remembered, the newest ones."""
TOLD_FOR_S: Final = 40 * 86_400
"""How long: a month's budget, and a little more."""
FILE_MAX_BYTES: Final = 4 * 1024 * 1024
"""What is remembered, as it is kept."""

_log = logging.getLogger("mixgate.alerts")


class Remembered(Struct):
    """What is kept."""

    told: dict[str, float] = {}
    """By target, event and subject, when it was."""


class Memory:
    """The file. One process has it.

    Args:
        path: Where it is, or will be.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.kept = self._read()
        self._changed = False

    def is_new(self, name: str, unix_s: float) -> bool:
        """Whether something was not told yet. From now on it was."""
        told = self.kept.told
        if name in told:
            return False
        told[name] = unix_s
        self._changed = True
        return True

    def save(self, unix_s: float) -> None:
        """Write it down, where there is anything new. Blocks. What cannot be written is said, and tried again."""
        if not self._changed:
            return
        told = {name: when for name, when in self.kept.told.items() if when > unix_s - TOLD_FOR_S}
        self.kept.told = dict(sorted(told.items(), key=lambda one: one[1])[-TOLD_MAX:])
        part = self._path.with_name(f"{FILE_NAME}.{os.getpid()}.part")
        try:
            part.touch(mode=0o600)
            part.write_bytes(msgspec.json.encode(self.kept))
            part.replace(self._path)
        except OSError as error:
            _log.warning("%s cannot be written, so alerts may come twice: %s", self._path, error.strerror or error)
            return
        self._changed = False

    def _read(self) -> Remembered:
        try:
            with self._path.open("rb") as file:
                return msgspec.json.decode(file.read(FILE_MAX_BYTES), type=Remembered)
        except FileNotFoundError:
            return Remembered()
        except (OSError, msgspec.DecodeError) as error:
            _log.warning("%s cannot be read, so alerts may come twice: %s", self._path, error)
            return Remembered()
