"""The process beside the gateway: what it gets, what becomes of it, and what becomes of whoever waits for it."""

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from gateway.config.load import load
from gateway.dashboard import aside as module
from gateway.dashboard.aside import Aside
from gateway.dashboard.configuration import pack_catalogue, unpack_catalogue
from gateway.dashboard.errors import DashboardBusyError, FiguresUnavailableError
from gateway.dashboard.jobs import Job
from gateway.state.connection import FILE_NAME, open_writer
from tests.fakes.gateway import openai_config

SPEND = Job(number=0, what="spend", role="admin", unix_s=1_763_000_000.0)


@pytest.fixture
async def aside(tmp_path):
    path = tmp_path / FILE_NAME
    open_writer(path).close()
    one = Aside(path)
    yield one
    await one.aclose()


def is_alive(pid):
    """Whether a process runs, zombies apart."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def ended(pid):
    async with asyncio.timeout(10):
        while is_alive(pid):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.02)


async def test_jobs_are_done_at_the_same_time_and_each_gets_its_own_reply(aside):
    jobs = [msgspec.structs.replace(SPEND, query=f"by={by}".encode()) for by in ("model", "key", "nothing", "tag")]
    replies = await asyncio.gather(*map(aside.ask, jobs))
    assert [reply.status for reply in replies] == [200, 200, 400, 200]
    assert [msgspec.json.decode(reply.body).get("by") for reply in replies] == ["model", "key", None, "tag"]


async def test_it_gets_nothing_of_the_gateways_environment_and_opens_nothing_for_writing(aside, monkeypatch, tmp_path):
    monkeypatch.setenv("MIXGATE_ADMIN_TOKEN", "canary-of-the-environment")
    assert (await aside.ask(SPEND)).status == 200
    await asyncio.to_thread(look_into, aside._process.pid, tmp_path / FILE_NAME)


def look_into(pid, path):
    process = Path(f"/proc/{pid}")
    assert b"canary" not in (process / "environ").read_bytes()
    opened = [one.name for one in (process / "fd").iterdir() if one.readlink() == path]
    assert opened
    for name in opened:
        flags = (process / "fdinfo" / name).read_text().partition("flags:")[2].split()[0]
        assert int(flags, 8) & os.O_ACCMODE == os.O_RDONLY


async def test_who_waits_when_it_dies_is_told_and_the_next_one_gets_another(aside):
    assert (await aside.ask(SPEND)).status == 200
    process = aside._process
    waiting = asyncio.create_task(aside.ask(SPEND))
    process.kill()
    with contextlib.suppress(FiguresUnavailableError):
        assert (await waiting).status == 200, "where it was faster"
    await ended(process.pid)
    await asyncio.sleep(0)
    for _ in range(2):  # the first may still meet the pipe of the dead one
        try:
            reply = await aside.ask(SPEND)
        except FiguresUnavailableError:
            continue
    assert reply.status == 200
    assert aside._process.pid != process.pid


async def test_it_goes_when_nobody_asks_any_more_and_when_the_gateway_ends(aside, monkeypatch):
    monkeypatch.setattr(module, "IDLE_S", 0.05)
    assert (await aside.ask(SPEND)).status == 200
    await ended(aside._process.pid) if aside._process is not None else None
    monkeypatch.undo()
    await aside.warm()
    pid = aside._process.pid
    await aside.aclose()
    assert not is_alive(pid)


async def test_too_much_at_once_is_refused(aside, monkeypatch):
    monkeypatch.setattr(module, "WAITING_MAX", 2)
    asked = [asyncio.create_task(aside.ask(SPEND)) for _ in range(2)]
    await aside.warm()
    with pytest.raises(DashboardBusyError):
        await aside.ask(SPEND)
    assert [reply.status for reply in await asyncio.gather(*asked)] == [200, 200]


CTRL_C_WHILE_IT_LOADS = """\
import os, signal, sys

def pressed(event, given, waiting=[1]):
    if waiting and event == "import" and given[0] == "gateway.dashboard.answers":
        waiting.clear()
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(pressed)
"""


def test_ctrl_c_at_the_gateways_terminal_is_nothing_to_it_also_while_it_only_loads(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(CTRL_C_WHILE_IT_LOADS)
    done = subprocess.run(
        [sys.executable, "-m", "gateway.dashboard.clerk_process", str(tmp_path / FILE_NAME)],
        env={"PYTHONPATH": f"{tmp_path}:{Path(module.__file__).parents[2]}"},
        input=b"",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


async def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    aside = Aside(tmp_path / FILE_NAME)
    reply = await aside.ask(SPEND)
    await aside.aclose()
    assert reply.status == 503
    assert msgspec.json.decode(reply.body)["error"]["code"] == "store_unavailable"


def test_a_configuration_travels_without_its_secrets(tmp_path):
    path = tmp_path / "providers.yaml"
    config = openai_config("http://127.0.0.1:9").replace("    models:", "    api_key: env:KEY\n    models:", 1)
    path.write_text("gateway: {client_keys: [env:CLIENT], admin_token: env:ADMIN}\n" + config)
    secrets = {"KEY": "canary-provider-key", "CLIENT": "canary-client-key", "ADMIN": "canary-admin-token"}
    catalogue = load(path, secrets)
    data = pack_catalogue(catalogue)
    assert b"canary" not in data
    came = unpack_catalogue(data)
    assert (came.endpoints, came.routes, came.aliases) == (catalogue.endpoints, catalogue.routes, catalogue.aliases)
    assert came.price_overrides == catalogue.price_overrides
