"""The rows that are measured by themselves: codecs without sockets, and remote requests beside the local worker."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import parse
from bench.beside_local import LOCAL_STREAMS, Condition, _with_local, judge_beside_local, lag_p99_ms
from bench.codecs import NOT_STREAMED, measure_codecs
from bench.report import keep, save
from bench.targets import UnavailableError
from bench.watched_serve import RECORD
from bench.wire import PIECES, request_body, streams
from gateway.server.openai_request import decode_chat
from providers import DIALECTS

ROOT = Path(__file__).parents[2]
IDLE = Condition(p50_us=60, p99_us=100, direct_p50_us=10, direct_p99_us=20, lag_p99_ms=0.1)


def test_every_dialect_has_its_rows():
    judged = {judgement.name: judgement for judgement in measure_codecs(2)}
    assert all(judgement.value > 0 for judgement in judged.values())
    assert {name for name in DIALECTS if f"decode a chunk, {name}" in judged} == set(DIALECTS) - NOT_STREAMED
    assert all(f"encode 20 messages, {name}" in judged for name in DIALECTS)


def test_the_timed_request_has_20_messages_and_the_streams_one_chunk_per_piece():
    assert len(decode_chat(request_body()).messages) == 20
    assert {len(chunks) for chunks in streams().values()} == {len(PIECES)}


def test_a_run_of_the_codecs_is_kept_beside_what_was_there(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"rounds": 3}))
    command = [sys.executable, "-m", "bench", "--codecs", "--quick", "--out", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert "decode a chunk, openai, us" in done.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["rounds"] == 3
    assert {bar["unit"] for bar in results["codecs"]["bars"]} == {"us"}


def test_the_side_by_side_run_leaves_what_was_measured_alone(tmp_path):
    path = tmp_path / "results.json"
    keep("codecs", [], path)
    save({"versions": {}, "visits": [], "import_s": None}, path)
    assert "codecs" in json.loads(path.read_text())


def test_the_bars_beside_the_worker_are_medians_of_pairs():
    slow = Condition(p50_us=65, p99_us=500, direct_p50_us=10, direct_p99_us=20, lag_p99_ms=3.0)
    status = {judged.name: judged.status for judged in judge_beside_local([IDLE] * 3, {"it": [IDLE, IDLE, slow]})}
    assert set(status.values()) == {"PASS"}
    busy = {"streams": [IDLE, slow, slow], "answers": [IDLE]}
    worse = {judged.name: judged for judged in judge_beside_local([IDLE] * 3, busy)}
    assert worse["remote overhead p99 beside streams"].value == pytest.approx(6)
    assert worse["remote overhead p99 beside answers"].value == pytest.approx(1)
    assert worse["event loop lag p99 beside streams"].status == "FAIL"
    assert worse["event loop lag p99 beside answers"].status == "PASS"
    assert worse["event loop lag p99 beside an idle worker"].status == "PASS"
    assert {judged.status for judged in judge_beside_local([], {"streams": []})} == {"not run"}


def test_an_overhead_below_nothing_is_no_measurement():
    disturbed = Condition(p50_us=60, p99_us=100, direct_p50_us=10, direct_p99_us=300, lag_p99_ms=0.1)
    by_name = {judged.name: judged.status for judged in judge_beside_local([IDLE], {"it": [disturbed]})}
    assert by_name["remote overhead p99 beside it"] == "not run"
    assert by_name["remote overhead p50 beside it"] == "PASS"


def test_another_model_can_be_measured_and_must_be_there(tmp_path, capsys):
    file = tmp_path / "other.gguf"
    with pytest.raises(SystemExit):
        parse(["--beside-local", "--local-model", str(file)])
    assert f"there is no file {file}" in capsys.readouterr().err
    file.touch()
    model = parse(["--beside-local", "--local-model", str(file)]).local_model
    row = json.loads(_with_local('{"providers": {}}', model))["providers"]["local"]["models"]["local"]
    assert (row["file"], row["slots"]) == (str(file), LOCAL_STREAMS)


def test_lag_counts_only_within_its_window():
    records = b"".join(RECORD.pack(float(at), at / 1000) for at in range(200))
    assert lag_p99_ms(records + b"half", 0, 99) == pytest.approx(99)
    with pytest.raises(UnavailableError):
        lag_p99_ms(records, 500, 600)
