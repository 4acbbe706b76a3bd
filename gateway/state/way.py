"""The store's thread must not keep the event loop waiting: neither for Python's lock nor for a processor.

The interpreter takes the lock away from a thread every few milliseconds, where another waits for it. Code that is
compiled (docs/adr/0026-compiled-modules.md) is never interrupted, so whatever goes through many rows gives way itself.
"""

import contextlib
import os
import sys
import threading
import time
from typing import Final

ROWS_IN_A_ROW: Final = 24
"""So many rows of a batch are worked through before others may have Python's lock: 40 us."""
_PAUSE_S: Final = 0.00005
"""Long enough for whoever waits to wake up; a thread that gives the lock up for less has it back before that."""
NICENESS: Final = 4
"""How far the store's thread stands behind the loop's where both want the same processor. Requests then take it at
once, and a saturated processor still leaves the store the 29 % that its share of a request needs."""


def step_back() -> None:
    """Let the thread that calls this be the one that waits, where processors are few."""
    if sys.platform == "linux":  # elsewhere a thread has no niceness of its own
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):  # a sandbox that allows nothing
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)


def give_way() -> None:
    """Let another thread have the lock."""
    time.sleep(_PAUSE_S)
