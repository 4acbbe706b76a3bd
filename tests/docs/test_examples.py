"""Every block marked `runnable` does what its page says: configurations load, commands run, requests are answered."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.config.load import load
from tests.docs.pages import ROOT, Block, blocks

CLIENT_KEY = "a-client-key-for-the-documents"
LOOPBACK_PORT = re.compile(r"(?<=127\.0\.0\.1:)80[0-9]{2}\b")
READY_LIMIT_S = 60.0
RUN_LIMIT_S = 90.0
ENGINE_MISSING = "the local engine is not installed: `make engine` builds it"
HAS_ENGINE = importlib.util.find_spec("llama_cpp") is not None and importlib.util.find_spec("jinja2") is not None
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def environment(home: Path, **more: str) -> dict[str, str]:
    """The tests' own environment without anybody's keys and settings, with our commands first on the path."""
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "PATH", "TMPDIR")}
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return kept | {"MIXGATE_HOME": str(home), "MIXGATE_CLIENT_KEY": CLIENT_KEY} | more


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the examples run: the shipped file, the files that pages tell to write, and keys that they name."""
    place = tmp_path_factory.mktemp("examples")
    shutil.copy(ROOT / "providers.yaml", place)
    for block in blocks("yaml"):
        if block.config:
            (place / block.config).write_text(block.text)
    for name in ("internal.key", "client-two.key", "alerts.key", "cert.pem", "key.pem"):
        (place / name).write_text("a-key-that-a-page-names\n")
        (place / name).chmod(0o600)
    return place


@dataclass
class Gateways:
    """One gateway for each configuration that is asked for, started when first needed."""

    folder: Path
    stack: contextlib.ExitStack
    ports: dict[str, int]

    def port(self, config: str) -> int:
        if config not in self.ports:
            self.ports[config] = self.stack.enter_context(served(self.folder, config))
        return self.ports[config]


@pytest.fixture(scope="module")
def gateways(folder) -> Iterator[Gateways]:
    with contextlib.ExitStack() as stack:
        yield Gateways(folder, stack, {})


@contextlib.contextmanager
def served(folder: Path, config: str) -> Iterator[int]:
    """A gateway in a process of its own, on a port that the system chose, with its demonstration model ready."""
    start = "from gateway.cli import main; main()"
    command = [sys.executable, "-c", start, "serve", "--config", config, "--port", "0"]
    log = (folder / f"{config}.log").open("w")
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(folder / "home", PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if match := re.search(r"http://127\.0\.0\.1:(\d+)/v1", line):
                break
        else:
            pytest.fail(f"the gateway did not start: {Path(log.name).read_text()}")
        port = int(match[1])
        wait_ready(port)
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=15)
        process.kill()
        process.communicate()
        log.close()


def wait_ready(port: int) -> None:
    """Until the demonstration model is loaded."""
    last = ""
    end_s = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < end_s:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            last = answer.read().decode()
        if json.loads(last)["local"]["tiny-mixtral"] == "ready":
            return
        time.sleep(0.1)
    pytest.fail(f"the demonstration model is not ready: {last}")


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_configurations_load(block: Block, folder, tmp_path):
    path = tmp_path / "providers.yaml"
    path.write_text(block.text.replace("/etc/mixgate/", f"{folder}/"))
    named = {name: f"{name.lower()}-0123456789" for name in re.findall(r"env:(\w+)", block.text)}
    catalogue = load(path, named | {"MIXGATE_CLIENT_KEY": CLIENT_KEY})
    assert catalogue.endpoints


def run(block: Block, gateways: Gateways, command: list[str]) -> None:
    """Run a block; a request goes to a gateway of ours, and what it prints holds every line that the page shows."""
    text = block.text
    if LOOPBACK_PORT.search(text):
        if not HAS_ENGINE:
            pytest.skip(ENGINE_MISSING)
        text = LOOPBACK_PORT.sub(str(gateways.port(block.config or "providers.yaml")), text)
    done = subprocess.run(
        [*command, text],
        cwd=gateways.folder,
        env=environment(gateways.folder / "home", MIXGATE_PORT="0"),
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_LIMIT_S,
    )
    said = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, said
    assert done.stdout.strip(), said
    for line in block.output:
        assert line in done.stdout.replace("\r", ""), said


@pytest.mark.parametrize("block", blocks("bash"), ids=str)
def test_shell_examples_run(block: Block, gateways):
    if "curl" in block.text and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    if "doctor" in block.text and not HAS_ENGINE:
        pytest.skip(ENGINE_MISSING)
    run(block, gateways, ["bash", "-euo", "pipefail", "-c"])


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_examples_run(block: Block, gateways):
    run(block, gateways, [sys.executable, "-c"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed: `make packages` installs it as root")
@pytest.mark.skipif(not HAS_ENGINE, reason=ENGINE_MISSING)
@pytest.mark.parametrize("block", blocks("nginx"), ids=str)
def test_the_reverse_proxy_example_passes_requests_and_streams(block: Block, gateways, folder, tmp_path):
    page = next(other for other in blocks("yaml") if other.page == block.page)
    (folder / "behind.yaml").write_text(page.text)
    port = free_port()
    places = "\n".join(
        f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    http = LOOPBACK_PORT.sub(str(gateways.port("behind.yaml")), block.text).replace(
        "listen 80;", f"listen 127.0.0.1:{port};"
    )
    head = f"daemon off; pid {tmp_path}/pid; error_log stderr; events {{}}\n"
    (tmp_path / "nginx.conf").write_text(f"{head}http {{ access_log off; {places}\n{http} }}\n")
    with subprocess.Popen(
        [str(NGINX), "-p", str(tmp_path), "-e", "stderr", "-c", str(tmp_path / "nginx.conf")], stderr=subprocess.PIPE
    ) as nginx:
        try:
            wait_listening(port)
            answers = [ask(port, stream=stream) for stream in (False, True)]
        finally:
            nginx.terminate()
            nginx.communicate(timeout=15)
    assert '"chat.completion"' in answers[0]
    assert answers[1].rstrip().endswith("data: [DONE]")


def ask(port: int, *, stream: bool) -> str:
    """One request through the proxy, as a browser far away would name it."""
    body = {"model": "demo", "stream": stream, "messages": [{"role": "user", "content": "Hello!"}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {
            "content-type": "application/json",
            "host": "gateway.example",
            "authorization": f"Bearer {CLIENT_KEY}",
            "x-forwarded-for": "192.0.2.1",
        },
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # our own gateway
        return str(answer.read().decode())


def wait_listening(port: int) -> None:
    """Until something accepts connections there."""
    end_s = time.monotonic() + READY_LIMIT_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        assert time.monotonic() < end_s
        time.sleep(0.05)
