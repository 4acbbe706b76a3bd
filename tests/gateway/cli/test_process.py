"""The command as a user runs it: a process of its own, on a terminal, in a pipe, under signals."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

DEADLINE_S = 60
MIXGATE = [sys.executable, "-c", "from gateway.cli import main; main()"]
ROOT = Path(__file__).parents[3]
CONFIG = """\
gateway: {port: 0, drain_s: 1}
providers:
  mine:
    dialect: openai
    base_url: http://127.0.0.1:9/v1
    models: {first: {}}
"""
HEAVY = ("rich", "httpx", "aiohttp", "tenacity", "jinja2", "numpy", "llama_cpp", "hypothesis", "litellm", "botocore")


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MIXGATE_", "OPENROUTER_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "MIXGATE_HOME": str(home), "TERM": "xterm-256color", **more}


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MIXGATE, *arguments],
        cwd=folder,
        env=environment(folder / "home"),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_check_exits_0_on_the_shipped_file_and_2_on_a_broken_one(tmp_path: Path):
    done = run("check", folder=tmp_path)
    assert (done.returncode, done.stderr.count("error")) == (0, 0)
    (tmp_path / "providers.yaml").write_text("providers:\n  a: {dialect: opnai}\n")
    done = run("check", folder=tmp_path)
    assert done.returncode == 2
    assert 'providers.yaml:2: error: providers.a.dialect: unknown dialect "opnai"; known:' in done.stderr
    assert "fix: use one of" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_gets_tables_and_a_pipe_gets_text(tmp_path: Path):
    assert "\x1b" not in run("check", folder=tmp_path).stdout
    ours, theirs = pty.openpty()
    child = subprocess.Popen([*MIXGATE, "check"], cwd=tmp_path, env=environment(tmp_path), stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:
        pass  # Linux says EIO when the other side of a terminal is closed.
    finally:
        os.close(ours)
        assert child.wait(DEADLINE_S) == 0
    assert "─".encode() in shown
    assert b"\x1b[" in shown


def test_a_pipe_that_closes_early_is_no_traceback(tmp_path: Path):
    done = subprocess.run(
        ["sh", "-c", '"$@" | head -n 1', "sh", *MIXGATE, "check"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.stdout == "Providers\n"
    assert "Traceback" not in done.stderr


def imported(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(ROOT),
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE_S,
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("statement", ["import gateway.cli", "import gateway.config.load", "import gateway.cli.serve"])
def test_starting_loads_nothing_heavy(statement: str):
    assert not imported(statement) & set(HEAVY)


def test_the_command_line_itself_loads_nothing_of_the_gateway():
    assert not imported("import gateway.cli") & {"pydantic", "yaml", "msgspec", "uvloop", "uvicorn", "providers"}


class Serving:
    """A running `mixgate serve` with what it printed so far."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*MIXGATE, "serve"],
            cwd=folder,
            env=environment(folder / "home"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=lambda: self.lines.extend(iter(self.process.stdout.readline, "")))
        self._reader.start()

    def wait_for(self, condition: Callable[[], object]) -> None:
        give_up_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < give_up_s, self.text
            assert self.process.poll() is None or condition(), self.text
            time.sleep(0.02)

    @property
    def text(self) -> str:
        return "".join(self.lines)

    @property
    def url(self) -> str:
        return next(line.split()[-1] for line in self.lines if line.startswith("base URL"))

    def stop(self, number: int = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(DEADLINE_S)
        self._reader.join()
        self.process.stdout.close()
        return code


@pytest.fixture
def serving(tmp_path: Path):
    (tmp_path / "providers.yaml").write_text(CONFIG)
    server = Serving(tmp_path)
    yield server
    if server.process.poll() is None:
        server.process.kill()
    server.stop()


def model_names(url: str) -> set[str]:
    with urllib.request.urlopen(f"{url}/models", timeout=DEADLINE_S) as answer:  # noqa: S310  # our own server
        return {model["id"] for model in json.load(answer)["data"]}


def test_serve_says_where_it_is_takes_up_changes_and_keeps_on_through_broken_ones(serving: Serving, tmp_path: Path):
    serving.wait_for(lambda: "curl " in serving.text)
    assert f"Mixgate reads {tmp_path}/providers.yaml" in serving.text
    assert "on   mine: 1 of 1 models" in serving.text
    assert '"model": "first"' in serving.text
    assert model_names(serving.url) == {"first"}

    config = tmp_path / "providers.yaml"
    config.write_text(CONFIG.replace("first", "second"))
    serving.wait_for(lambda: model_names(serving.url) == {"second"})

    config.write_text(CONFIG.replace("dialect: openai", "dialect: opnai"))
    serving.wait_for(lambda: f'{config}:4: providers.mine.dialect: unknown dialect "opnai"' in serving.text)
    assert model_names(serving.url) == {"second"}

    assert serving.stop() == 0, serving.text
    assert "Traceback" not in serving.text


CTRL_C_AT = """\
import os, signal, sys, threading, time

def pressed(event, given, waiting=[os.environ["CTRL_C_AT"]]):
    if waiting and f"{event} {given[0] if given else ''}".startswith(waiting[0]):
        waiting.clear()
        os.kill(os.getpid(), signal.SIGINT)
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.5)  # so that it is heard while this still goes on

sys.addaudithook(pressed)
"""
"""Read by the interpreter at its start: Ctrl-C comes where the program does a certain thing."""


def press_ctrl_c(moment: str, *flags: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(CTRL_C_AT)
    (folder / "providers.yaml").write_text(CONFIG)
    env = environment(folder / "home", CTRL_C_AT=moment.replace("HOME", str(folder / "home")))
    return subprocess.run(
        [*MIXGATE, "serve", *flags],
        cwd=folder,
        env=env | {"PYTHONPATH": f"{folder}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


@pytest.mark.parametrize("moment", ["import click", "import gateway.cli.facts", "import gateway.app"])
def test_ctrl_c_before_serve_has_begun_ends_it_without_a_word(tmp_path: Path, moment: str):
    done = press_ctrl_c(moment, folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("moment", "flags"), [("os.mkdir HOME/journal", ()), ("socket.bind", ()), ("socket.bind", ("--workers", "2"))]
)
def test_ctrl_c_while_serve_begins_ends_it_without_a_trace(tmp_path: Path, moment: str, flags: tuple[str, ...]):
    done = press_ctrl_c(moment, *flags, folder=tmp_path)
    # 0: it had come so far that it ended as it always does.
    assert done.returncode == 130 if moment.startswith("os.mkdir") else done.returncode in {0, 130}
    assert done.stdout == "" or done.returncode == 0
    assert not any(word in done.stderr for word in ("Traceback", "Aborted", "ERROR")), done.stderr
