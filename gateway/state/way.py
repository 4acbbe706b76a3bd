"""Python's lock, given up now and then: the store's thread must not keep the event loop waiting.

The interpreter takes the lock away from a thread every few milliseconds, where another waits for it. Code that is
compiled (docs/adr/0026-compiled-modules.md) is never interrupted, so whatever goes through many rows gives way itself.
"""

import time
from typing import Final

ROWS_IN_A_ROW: Final = 24
"""So many rows of a batch are worked through before others may have Python's lock: 40 us."""
_PAUSE_S: Final = 0.00005
"""Long enough for whoever waits to wake up; a thread that gives the lock up for less has it back before that."""


def give_way() -> None:
    """Let another thread have the lock."""
    time.sleep(_PAUSE_S)
