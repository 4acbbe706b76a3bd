"""Books in a folder of the test's own."""

import threading
from pathlib import Path

import pytest

from gateway.ledger.segment import Files
from tests.gateway.ledger.ledger_kit import Ledger


@pytest.fixture
def make_ledger(tmp_path):
    made = []

    def make(files: Files | None = None, home: Path = tmp_path, **sizes) -> Ledger:
        ledger = Ledger(home, files, **sizes)
        made.append(ledger)
        return ledger

    yield make
    for ledger in made:
        ledger.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "mixgate-journal"]


@pytest.fixture
def ledger(make_ledger) -> Ledger:
    return make_ledger()
