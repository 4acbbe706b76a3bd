"""SIGTERM to a real process: what runs is finished, what is asked is told, the exit code is 0."""

import http.client
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SERVER = textwrap.dedent(
    """
    import asyncio, json, sys

    from gateway.server.lifecycle import Lifecycle
    from gateway.server.run import ServerSettings, run, serve

    lifecycle = Lifecycle()
    JSON = [(b"content-type", b"application/json")]

    async def app(scope, receive, send):
        await receive()
        path = scope["path"]
        if path == "/readyz":
            await send({"type": "http.response.start", "status": 503 if lifecycle.draining else 200, "headers": JSON})
            await send({"type": "http.response.body", "body": b"{}"})
            return
        count = int(path[1:])
        over = asyncio.Event()
        lifecycle.on_deadline(over.set)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for number in range(count):
            await send({"type": "http.response.body", "body": b"data: %d\\n\\n" % number, "more_body": True})
            if over.is_set():
                last = b'data: {"error": "shutdown"}\\n\\n'
                await send({"type": "http.response.body", "body": last, "more_body": True})
                break
            await asyncio.sleep(0.1)
        lifecycle.forget(over.set)
        await send({"type": "http.response.body", "body": b"data: [DONE]\\n\\n"})

    settings = ServerSettings(port=0, drain_lag_s=float(sys.argv[1]), drain_s=float(sys.argv[2]))
    sys.exit(run(serve(app, settings, lifecycle, lambda host, port: print(port, flush=True))))
    """
)


@contextmanager
def serving(*, lag_s=1.0, drain_s=60.0):
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(lag_s), str(drain_s)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


class Stream(threading.Thread):
    """One streamed answer, read in a thread of its own."""

    def __init__(self, port, count):
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.connection.request("GET", f"/{count}")
        self.response = self.connection.getresponse()
        self.first = self.response.readline()
        self.rest = b""
        self.error = None
        self.start()

    def run(self):
        """Read to the end; a broken stream is an exception here."""
        try:
            self.rest = self.response.read()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        self.connection.close()


def ask(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def test_a_running_stream_is_finished_and_the_exit_code_is_0():
    with serving(lag_s=1.5) as (process, port):
        assert ask(port, "/readyz").status == 200
        stream = Stream(port, 30)
        began_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        during = ask(port, "/readyz")
        assert during.status == 503
        assert during.headers["connection"] == "close"
        assert ask(port, "/1").status == 200  # still served: a load balancer needs time to notice
        assert process.wait(60) == 0
        assert time.monotonic() - began_s >= 1.5
        stream.join(10)
        assert stream.error is None
        assert stream.rest.endswith(b"data: 29\n\ndata: [DONE]\n\n")


def test_after_the_lag_nobody_new_is_let_in_while_the_stream_goes_on():
    with serving(lag_s=0.2) as (process, port):
        stream = Stream(port, 30)
        process.send_signal(signal.SIGTERM)
        time.sleep(1.2)
        with pytest.raises(ConnectionRefusedError):
            ask(port, "/readyz")
        assert process.poll() is None
        assert process.wait(60) == 0
        stream.join(10)
        assert stream.rest.endswith(b"data: [DONE]\n\n")


def test_with_nothing_running_the_end_comes_right_after_the_lag_even_with_idle_connections():
    with serving(lag_s=0.3, drain_s=60) as (process, port):
        idle = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        idle.request("GET", "/readyz")
        idle.getresponse().read()
        silent = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        silent.connect()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        idle.close()
        silent.close()


def test_ctrl_c_does_not_wait_for_a_load_balancer():
    with serving(lag_s=300) as (process, port):
        assert ask(port, "/readyz").status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_a_stream_over_the_drain_limit_is_ended_in_band():
    with serving(lag_s=0, drain_s=1) as (process, port):
        stream = Stream(port, 1000)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        stream.join(10)
        assert stream.error is None
        assert b'data: {"error": "shutdown"}' in stream.rest
        assert stream.rest.endswith(b"data: [DONE]\n\n")


def test_a_second_signal_leaves_seconds():
    with serving(lag_s=300, drain_s=300) as (process, port):
        stream = Stream(port, 3000)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        stream.join(10)
        assert stream.error is None
        assert b'data: {"error": "shutdown"}' in stream.rest
