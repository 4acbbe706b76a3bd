"""A process that keeps books until it is killed, and tells on its standard output what the provider would bill.

`b <id>`: it may be sent now. `s <id> <nano-USD>`: it is settled, and cost this. Arguments: folder, seed.
"""

import os
import random
import sys
import time
from pathlib import Path

from tests.gateway.ledger.ledger_kit import Ledger


def main(home: Path, seed: int) -> None:
    dice = random.Random(seed)
    ledger = Ledger(home, segment_bytes=64 * 1024 if seed % 2 else 4 * 1024 * 1024, spares=3)
    under_way: list[str] = []
    number = 0
    os.write(1, b"ready\n")
    while True:
        number += 1
        while not ledger.journal.usable:  # this loop is faster than any gateway, and some of its files much smaller
            time.sleep(0.001)
        name = f"gen-{seed:05d}{number:07d}/1"
        ledger.begin(name)
        os.write(1, b"b %b\n" % name.encode())
        under_way.append(name)
        if dice.random() < 0.1:
            ledger.books.checkpoint(dice.choice(under_way), 300)
        while len(under_way) > dice.randrange(12):
            name = under_way.pop(dice.randrange(len(under_way)))
            settled = ledger.end(name, dice.randrange(1000))
            os.write(1, b"s %b %d\n" % (name.encode(), settled.cost_in_nusd))
        if dice.random() < 0.01:
            ledger.store.flush(0.002)


main(Path(sys.argv[1]), int(sys.argv[2]))
