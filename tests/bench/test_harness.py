"""The benchmark's programs against each other, and one very short run of the whole thing."""

import json
import os
import shutil
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bench.accounting import process_tree, read_cpu, read_pss_mb
from bench.modes import MARKER, MODES, Mode, write_bodies
from bench.report import markdown, tabulate
from bench.targets import mixgate_config
from bench.tools import BenchError, MockUpstream, build_tools, run_load

ROOT = Path(__file__).parents[2]
SHORT_S = 0.2

pytestmark = pytest.mark.skipif(
    not (shutil.which("cc") and Path("/proc/self/stat").exists()), reason="needs Linux and a C compiler"
)


@pytest.fixture(scope="module")
def tools():
    return build_tools()


@pytest.fixture(scope="module")
def bodies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bodies")
    write_bodies(folder)
    return folder


def test_without_a_compiler_it_says_so(tmp_path, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchError, match="no C compiler"):
        build_tools(tmp_path)


def test_the_bodies_have_the_sizes_that_their_modes_promise(bodies):
    assert 700 < (bodies / "small.json").stat().st_size < 1100
    assert 100_000 < (bodies / "large.json").stat().st_size < 130_000
    assert MARKER in (bodies / "marked.json").read_text()
    assert {mode.body for mode in MODES} == {path.stem for path in bodies.iterdir()}


def test_client_and_mock_count_the_same_requests(tools, bodies):
    with MockUpstream(tools.mock) as mock:
        mode = Mode("whole", "", 4, SHORT_S, "small")
        load = run_load(tools.load, mode, port=mock.port, bodies=bodies, headers=("X-One: 1",))
        assert load.completed == load.requests == mock.counts().requests > 0
        assert (load.bad, load.crossed, load.first_failure) == (0, 0, "")


def test_every_chunk_of_a_paced_stream_arrives_soon_after_it_was_sent(tools, bodies):
    with MockUpstream(tools.mock) as mock:
        mock.set_pace(delay_us=2000, chunks=20)
        mode = Mode("paced", "", 4, SHORT_S, "stream", chunks=20, delay_us=2000)
        load = run_load(tools.load, mode, port=mock.port, bodies=bodies, headers=())
        counts = mock.counts()
    assert load.bad == 0
    assert load.completed == counts.streams == counts.streams_finished >= 4
    assert load.ticks == load.completed * 19
    # A stream of 20 chunks takes some 40 ms: the first chunk came long before its end.
    assert load.ttft_us["p50"] < load.latency_us["p50"] / 2


def test_a_marked_request_gets_its_own_marker_back(tools, bodies):
    with MockUpstream(tools.mock) as mock:
        mock.set_pace(delay_us=0, chunks=10)
        for mode in (Mode("a", "", 8, SHORT_S, "marked"), Mode("b", "", 8, SHORT_S, "marked_stream", chunks=10)):
            load = run_load(tools.load, mode, port=mock.port, bodies=bodies, headers=())
            assert load.completed > 8
            assert (load.bad, load.crossed, load.unmarked) == (0, 0, 0)


class CannedAnswers(socketserver.StreamRequestHandler):
    """Reads requests as long as they come and answers each with the server's one answer."""

    def handle(self):
        while head := self.rfile.readline():
            length = 0
            while head.strip():
                if head.lower().startswith(b"content-length:"):
                    length = int(head.split(b":")[1])
                head = self.rfile.readline()
            self.rfile.read(length)
            self.wfile.write(self.server.answer)
            if self.server.close_after:
                return


def load_against(answer, tools, bodies, *, mode, close_after=False):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), CannedAnswers) as server:
        server.daemon_threads = True
        server.answer, server.close_after = answer, close_after
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            return run_load(tools.load, mode, port=server.server_address[1], bodies=bodies, headers=())
        finally:
            server.shutdown()
            thread.join()


def whole_answer(body, status=b"200 OK"):
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def chunked(*pieces):
    body = b"".join(b"%X;x=y\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\nX-Trailer: 1\r\n\r\n"


MARKED = Mode("marked", "", 1, SHORT_S, "marked")
STREAM = Mode("stream", "", 1, SHORT_S, "stream", chunks=3)
TICK = b"tick=0000000000000000001"


def test_an_answer_with_anothers_marker_is_crossed(tools, bodies):
    load = load_against(whole_answer(b'{"content":"mk-ffffffffffffffff"}'), tools, bodies, mode=MARKED)
    assert load.crossed == load.completed > 0


def test_an_answer_without_a_marker_is_unmarked(tools, bodies):
    load = load_against(whole_answer(b"{}"), tools, bodies, mode=MARKED)
    assert load.unmarked == load.completed > 0


def test_an_error_status_is_bad_and_named(tools, bodies):
    load = load_against(whole_answer(b"{}", b"503 Busy"), tools, bodies, mode=MARKED)
    assert (load.completed, load.bad) == (0, load.requests)
    assert "503 Busy" in load.first_failure


def test_a_stream_is_read_across_chunk_borders(tools, bodies):
    whole = chunked(b"data: " + TICK[:9], TICK[9:] + b"\n\ndata: " + TICK + b"\n\n", b"data: [DONE]\n\n")
    load = load_against(whole, tools, bodies, mode=STREAM)
    assert load.completed > 0
    assert (load.bad, load.ticks) == (0, 2 * load.completed)


def test_a_stream_that_lacks_a_chunk_is_incomplete(tools, bodies):
    load = load_against(chunked(b"data: " + TICK + b"\n\n", b"data: [DONE]\n\n"), tools, bodies, mode=STREAM)
    assert load.incomplete == load.completed > 0


def test_a_stream_without_its_end_is_incomplete(tools, bodies):
    load = load_against(chunked(TICK + b" " + TICK), tools, bodies, mode=STREAM)
    assert load.incomplete == load.completed > 0


def test_a_connection_cut_in_the_middle_of_an_answer_is_a_failure(tools, bodies):
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"
    load = load_against(cut, tools, bodies, mode=MARKED, close_after=True)
    assert load.completed == 0
    assert load.failed > 0


def test_the_cpu_and_memory_of_a_child_count_as_its_parents():
    spin = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    command = ["sh", "-c", '"$0" -c "$1"; true', sys.executable, spin]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        before = read_cpu(os.getpid())
        process.stdout.readline()
        assert len(process_tree(process.pid)) == 2
        assert read_cpu(process.pid).exact_ns >= 0.3e9
        assert read_cpu(os.getpid()).since(before) >= 0
        assert read_pss_mb(process.pid) > 1
        process.communicate(b"\n")


def test_the_gateway_is_measured_with_a_client_key_and_three_endpoints():
    config = json.loads(mixgate_config(9000))
    assert config["gateway"]["client_keys"] == ["env:BENCH_CLIENT_KEY"]
    assert len(config["routes"]["bench-model"]["endpoints"]) == 3


def test_a_quick_run_of_one_mode_measures_keeps_and_prints(tmp_path, tools):
    assert tools
    command = [sys.executable, "-m", "bench", "--quick", "--targets", "direct,raw-anchor", "--modes", "c1"]
    done = subprocess.run(
        [*command, "--out", tmp_path], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    found = tabulate(results)["raw-anchor"]
    assert found.get("c1") > 0
    assert found.get("pss_mb") > 1
    assert found.get("start_s") > 0
    assert found.bad == 0
    assert "raw-anchor" in done.stdout
    assert "not run" in done.stdout
    assert "| raw-anchor |" in markdown(results)
