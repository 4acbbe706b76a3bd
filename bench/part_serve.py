"""`mixgate serve` without parts of it, for bars that were set before these parts existed: BENCH_WITHOUT names them.

`ledger`: no books, no meter; decision records are still left. `records`: neither those.
"""

import os
import sys
from typing import Final

from gateway.app import Gateway
from gateway.cli import main

WITHOUT: Final = "BENCH_WITHOUT"

_start = Gateway.start


async def _start_in_part(self: Gateway) -> None:
    await _start(self)
    without = os.environ[WITHOUT].split(",")
    if "ledger" in without:
        self.engine.books = None
        self.engine.sink = self._store  # pyright: ignore[reportPrivateUsage] - the records alone
    if "records" in without:
        self.engine.sink = None


if __name__ == "__main__":
    Gateway.start = _start_in_part
    sys.exit(main())
