"""Live reload: a sound change is swapped in, a broken one is told once, half-written files are waited for."""

import asyncio
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.catalogue import Catalogue
from gateway.config.load import load
from gateway.config.rows import retire_ended
from gateway.config.watch import SETTLE_LOOKS_MAX, Watcher
from gateway.errors import ConfigError
from gateway.routing.table import prepare

TEXT = "providers: {a: {dialect: openai, base_url: http://h, models: {%s: {}}}}\n"


class Fixture:
    """A watched file, and what the watcher said."""

    def __init__(self, tmp_path: Path, text: str = TEXT % "m") -> None:
        self.path = tmp_path / "providers.yaml"
        self.day = date(2026, 11, 1)
        self.env: dict[str, str] = {}
        self.loads = 0
        self.changes: list[Catalogue] = []
        self.errors: list[ConfigError] = []
        self.while_asleep: list[Callable[[], object]] = []
        self.slept: list[float] = []
        self.ticks = 0
        self.write(text)
        self.watcher = Watcher(
            self.load(),
            self.load,
            on_change=self.changes.append,
            on_error=self.errors.append,
            sleep=self.sleep,
            today=lambda: self.day,
        )
        self.loads = 0

    def write(self, text: str) -> None:
        # A new inode and a new time every write, however coarse the file system's clock is.
        self.ticks = getattr(self, "ticks", 0) + 1
        other = self.path.with_suffix(".new")
        other.write_text(text)
        os.utime(other, ns=(0, self.ticks * 10**9))
        other.replace(self.path)

    def load(self) -> Catalogue:
        self.loads += 1
        return load(self.path, self.env, today=self.day)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.while_asleep:
            self.while_asleep.pop(0)()


@pytest.fixture
def watched(tmp_path: Path) -> Fixture:
    return Fixture(tmp_path)


async def test_nothing_is_read_while_nothing_changes(watched: Fixture):
    for _ in range(5):
        await watched.watcher.look()
    assert (watched.loads, watched.changes, watched.errors) == (0, [], [])


async def test_a_change_is_handed_on_once(watched: Fixture):
    watched.write(TEXT % "n")
    await watched.watcher.look()
    await watched.watcher.look()
    assert [set(catalogue.routes) for catalogue in watched.changes] == [{"n"}]
    assert watched.loads == 1


async def test_a_broken_file_is_told_once_and_the_old_one_stays(watched: Fixture):
    watched.write("providers: [\n")
    await watched.watcher.look()
    await watched.watcher.look()
    assert watched.changes == []
    (error,) = watched.errors
    assert error.problems[0].where == f"{watched.path}:2"


async def test_a_mended_file_is_handed_on_even_if_it_is_the_old_one(watched: Fixture):
    watched.write("providers: 1\n")
    await watched.watcher.look()
    watched.write(TEXT % "m")
    await watched.watcher.look()
    assert len(watched.errors) == 1
    assert len(watched.changes) == 1


async def test_a_second_way_of_being_broken_is_told_too(watched: Fixture):
    for text in ("providers: 1\n", "routes: 1\n"):
        watched.write(text)
        await watched.watcher.look()
    assert len(watched.errors) == 2


async def test_a_touched_file_changes_nothing(watched: Fixture):
    watched.write(TEXT % "m")
    await watched.watcher.look()
    assert watched.loads == 1
    assert watched.changes == []


async def test_a_file_that_is_still_being_written_is_not_read(watched: Fixture):
    watched.write("providers: {a: {dia")
    watched.while_asleep = [lambda: watched.write("providers: {a: {dialect: ope"), lambda: watched.write(TEXT % "n")]
    await watched.watcher.look()
    assert watched.errors == []
    assert [set(catalogue.routes) for catalogue in watched.changes] == [{"n"}]


async def test_a_file_that_never_rests_is_tried_again_later(watched: Fixture):
    watched.write(TEXT % "n")
    watched.while_asleep = [lambda: watched.write(TEXT % "o")] * SETTLE_LOOKS_MAX
    await watched.watcher.look()
    assert (watched.loads, len(watched.slept)) == (0, SETTLE_LOOKS_MAX)
    await watched.watcher.look()
    assert [set(catalogue.routes) for catalogue in watched.changes] == [{"o"}]


async def test_a_file_that_is_gone_for_a_moment_is_not_missed(watched: Fixture):
    watched.path.unlink()
    watched.while_asleep = [lambda: watched.write(TEXT % "n")]
    await watched.watcher.look()
    assert watched.errors == []
    assert len(watched.changes) == 1


async def test_a_file_that_stays_away_is_told_and_its_return_is_noticed(watched: Fixture):
    watched.path.unlink()
    await watched.watcher.look()
    await watched.watcher.look()
    assert len(watched.errors) == 1
    watched.write(TEXT % "n")
    await watched.watcher.look()
    assert len(watched.changes) == 1


async def test_a_swapped_link_is_noticed(tmp_path: Path):
    for version in ("m", "n"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "providers.yaml").write_text(TEXT % version)
    link = tmp_path / "current"
    link.symlink_to("m")
    path = link / "providers.yaml"
    changes: list[Catalogue] = []

    async def rest(_: float) -> None:
        pass

    watcher = Watcher(
        load(path, {}), lambda: load(path, {}), on_change=changes.append, on_error=lambda _: None, sleep=rest
    )
    (tmp_path / "next").symlink_to("n")
    (tmp_path / "next").replace(link)
    await watcher.look()
    assert [set(catalogue.routes) for catalogue in changes] == [{"n"}]


async def test_a_key_file_is_watched_too(tmp_path: Path):
    key = tmp_path / "key"
    watched = Fixture(
        tmp_path,
        f"providers: {{a: {{dialect: openai, base_url: http://h, api_key: 'file:{key}', models: {{m: {{}}}}}}}}\n",
    )
    for text in ("first", "second"):
        key.write_text(text)
        key.chmod(0o600)
        await watched.watcher.look()
    assert [catalogue.providers["a"].api_key.reveal() for catalogue in watched.changes] == ["first", "second"]


async def test_a_model_that_ends_is_retired_when_its_day_has_passed(tmp_path: Path):
    watched = Fixture(
        tmp_path, "providers: {a: {dialect: openai, base_url: http://h, models: {m: {ends_on: 2026-11-01}}}}\n"
    )
    await watched.watcher.look()
    assert watched.changes == []
    watched.day = date(2026, 11, 2)
    await watched.watcher.look()
    assert watched.changes[0].endpoints["a/m"].state == "retired"


ENDING = "providers: {a: {dialect: openai, base_url: http://h, models: {m: {ends_on: 2026-11-01}, n: {}}}}\n"


@pytest.mark.parametrize("text", ["providers: [\n", "routes: 1\n", None])
async def test_a_model_ends_on_its_day_though_the_file_cannot_be_read_then(tmp_path: Path, text: str | None):
    watched = Fixture(tmp_path, ENDING)
    if text is None:
        watched.path.unlink()
    else:
        watched.write(text)
    await watched.watcher.look()
    watched.changes.clear()
    watched.day = date(2026, 11, 2)
    await watched.watcher.look()
    await watched.watcher.look()
    (catalogue,) = watched.changes
    table = prepare((catalogue.routes["m"],), catalogue, {})
    assert [(one.endpoint, one.code) for one in table.excluded] == [("a/m", "retired")]
    assert catalogue.endpoints["a/n"].state == "live"


async def test_a_model_that_ends_is_handed_on_once_though_the_file_is_read_too(tmp_path: Path):
    watched = Fixture(tmp_path, ENDING)
    watched.day = date(2026, 11, 2)
    await watched.watcher.look()
    assert (watched.loads, len(watched.changes)) == (1, 1)
    watched.day = date(2026, 11, 3)
    await watched.watcher.look()
    assert (watched.loads, len(watched.changes)) == (2, 1)


@given(st.dates(date(2026, 1, 1), date(2027, 12, 31)))
def test_a_day_that_passes_does_what_reading_anew_would_do(tmp_path_factory: pytest.TempPathFactory, day: date):
    path = tmp_path_factory.getbasetemp() / "ending.yaml"
    path.write_text(ENDING.replace("n: {}", "n: {ends_on: 2027-02-28}, o: {state: retired}"))
    before = load(path, {}, today=date(2026, 1, 1))
    after = retire_ended(before, day)
    assert after == load(path, {}, today=day)
    assert (after is before) == (day <= date(2026, 11, 1))
    assert retire_ended(after, day) is after


async def test_run_looks_again_and_again_until_it_is_cancelled(watched: Fixture):
    watched.while_asleep = [lambda: None, lambda: watched.write(TEXT % "n")]
    done = asyncio.Event()
    watched.watcher._on_change = lambda _: done.set()
    original = watched.sleep

    async def sleep(seconds: float) -> None:
        await original(seconds)
        await asyncio.sleep(0)

    watched.watcher._sleep = sleep
    task = asyncio.create_task(watched.watcher.run())
    async with asyncio.timeout(10):
        await done.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert watched.slept[0] == 1.0
