"""Downloads, against a hub on this machine: resumed, checked, bounded, cancelled, and only from where they may come."""

import asyncio
import errno
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from local_backend.file_errors import (
    BadFileError,
    ChecksumError,
    DiskFullError,
    NotOnHubError,
    OfflineError,
    PullBusyError,
    PullError,
)
from local_backend.pull import EXAMPLE, Progress, Pulled, parse_reference, pull
from tests.local_backend.gguf_files import Draft
from tests.local_backend.mock_hub import COMMIT, MockHub, model_content, run_hub

REPOSITORY = "some/model-GGUF"
NAME = "model.Q4_K_M.gguf"
CONTENT = model_content()
MIB = 1 << 20


@pytest.fixture
async def hub() -> AsyncGenerator[MockHub]:
    async with run_hub({NAME: CONTENT, "model.Q8_0.gguf": b"x", "imatrix.dat": b"y"}) as hub:
        yield hub


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "home" / "models"


async def _pull(hub: MockHub, models: Path, quantisation: str = "Q4_K_M", **more) -> Pulled:
    more = {"environ": {}, "retry_wait_s": 0.01, "endpoint": hub.endpoint} | more
    return await pull(REPOSITORY, quantisation, models=models, **more)


def _part(models: Path, content: bytes = CONTENT) -> Path:
    return models / f"{hashlib.sha256(content).hexdigest()}.part"


def _keep(models: Path, content: bytes) -> None:
    """As an earlier call left it."""
    models.mkdir(parents=True)
    _part(models).write_bytes(content)


def _names(models: Path) -> set[str]:
    return {path.name for path in models.iterdir() if not path.name.startswith(".")}


async def test_a_model_arrives_whole_and_under_its_own_name(hub: MockHub, models: Path):
    pulled = await _pull(hub, models)
    assert pulled.path == models / NAME
    assert pulled.path.read_bytes() == CONTENT
    assert pulled.commit == COMMIT
    assert pulled.facts.embedding_length == 256
    assert _names(models) == {NAME}
    assert f"/{REPOSITORY}/resolve/{COMMIT}/{NAME}" in [path for path, _ in hub.requests]


async def test_a_model_that_is_there_is_checked_and_not_downloaded(hub: MockHub, models: Path):
    await _pull(hub, models)
    hub.requests.clear()
    assert (await _pull(hub, models)).path.read_bytes() == CONTENT
    assert hub.ranges() == []
    # The right size with other bytes in it is not the model.
    (models / NAME).write_bytes(b"\0" * len(CONTENT))
    assert (await _pull(hub, models)).path.read_bytes() == CONTENT


async def test_broken_connections_are_resumed_from_the_byte_they_broke_at(hub: MockHub, models: Path):
    hub.drops_after = [MIB, MIB // 2, 300_000]
    pulled = await _pull(hub, models)
    assert pulled.path.read_bytes() == CONTENT
    ranges = hub.ranges()
    assert ranges[0] is None
    assert len(ranges) == 4
    assert all(text is not None and text.startswith("bytes=") for text in ranges[1:])
    assert hub.sent_bytes <= len(CONTENT) + 3 * 2 * MIB


async def test_a_download_killed_with_sigkill_goes_on_where_it_was(hub: MockHub, models: Path):
    hub.stalls_after = 2 * MIB
    code = (
        "import asyncio, sys; from pathlib import Path; from local_backend.pull import pull; "
        "asyncio.run(pull(sys.argv[1], 'Q4_K_M', models=Path(sys.argv[2]), endpoint=sys.argv[3], environ={}))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, REPOSITORY, str(models), hub.endpoint, cwd=Path(__file__).parents[2]
    )
    try:
        while not (_part(models).exists() and _part(models).stat().st_size >= MIB):
            assert process.returncode is None
            await asyncio.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
    kept = _part(models).stat().st_size
    assert not (models / NAME).exists()
    hub.stalls_after, hub.sent_bytes = None, 0
    hub.requests.clear()
    assert (await _pull(hub, models)).path.read_bytes() == CONTENT
    assert hub.ranges() == [f"bytes={kept}-"]
    assert hub.sent_bytes == len(CONTENT) - kept
    assert _names(models) == {NAME}


async def test_a_server_that_ignores_ranges_is_read_from_the_start(hub: MockHub, models: Path):
    _keep(models, CONTENT[:MIB])
    hub.ignores_range = True
    assert (await _pull(hub, models)).path.read_bytes() == CONTENT


async def test_a_part_longer_than_the_file_starts_again(hub: MockHub, models: Path):
    _keep(models, CONTENT + b"more")
    assert (await _pull(hub, models)).path.read_bytes() == CONTENT
    assert hub.ranges() == [None]


async def test_a_complete_part_only_needs_its_name(hub: MockHub, models: Path):
    _keep(models, CONTENT)
    assert (await _pull(hub, models)).path.read_bytes() == CONTENT
    assert hub.ranges() == []


async def test_wrong_content_is_deleted_and_an_error(hub: MockHub, models: Path):
    hub.promised[NAME] = "ab" * 32
    with pytest.raises(ChecksumError, match="instead of abababababab"):
        await _pull(hub, models)
    assert _names(models) == set()


async def test_a_part_gone_bad_on_disk_is_deleted_and_the_next_call_is_good(hub: MockHub, models: Path):
    _keep(models, b"\xff" * MIB)
    with pytest.raises(ChecksumError):
        await _pull(hub, models)
    assert (await _pull(hub, models)).path.read_bytes() == CONTENT


async def test_more_bytes_than_promised_are_refused(hub: MockHub, models: Path):
    hub.extra_bytes = b"surplus"
    with pytest.raises(ChecksumError, match="sent more than"):
        await _pull(hub, models)
    assert not (models / NAME).exists()


async def test_the_disk_is_asked_before_the_first_byte(hub: MockHub, models: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage("/")._replace(free=len(CONTENT))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(DiskFullError, match=r"GB of disk are needed .* set MIXGATE_HOME"):
        await _pull(hub, models)
    assert hub.ranges() == []
    # What has arrived before needs no room again.
    _part(models).write_bytes(CONTENT[: len(CONTENT) // 2])
    assert (await _pull(hub, models)).path.read_bytes() == CONTENT


async def test_progress_comes_at_least_once_a_second_even_when_nothing_arrives(hub: MockHub, models: Path):
    hub.stalls_after = MIB
    seen: list[tuple[float, Progress]] = []
    task = asyncio.create_task(_pull(hub, models, on_progress=lambda step: seen.append((time.monotonic(), step))))
    while not seen or seen[-1][1].done_bytes < MIB:
        assert not task.done()
        await asyncio.sleep(0.02)
    mark = time.monotonic()
    await asyncio.sleep(2.2)
    told = [at for at, _ in seen if at >= mark]
    started = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 1.0
    assert len(told) >= 2
    last = seen[-1][1]
    assert (last.stage, last.file, last.file_number, last.files) == ("downloading", NAME, 1, 1)
    assert last.total_bytes == len(CONTENT)
    # What had arrived is there for the next time.
    assert _part(models).stat().st_size == MIB


async def test_the_last_word_of_progress_is_done(hub: MockHub, models: Path):
    seen: list[Progress] = []
    await _pull(hub, models, on_progress=seen.append)
    assert seen[0].stage == "asking"
    assert (seen[-1].stage, seen[-1].done_bytes) == ("done", len(CONTENT))


async def test_several_parts_arrive_in_order_and_as_one_model(hub: MockHub, models: Path):
    whole = Draft(layers=2)
    hub.files = {}
    for number in range(3):
        part = Draft()
        part.tensors = whole.tensors[number::3]
        part.values = dict(whole.values) if number == 0 else {}
        part.values |= {"split.no": (2, number), "split.count": (2, 3)}
        hub.files[f"Q4_K_M/big-Q4_K_M-{number + 1:05}-of-00003.gguf"] = part.encode()
    pulled = await _pull(hub, models)
    assert [path.name for path in pulled.files] == [f"big-Q4_K_M-{n:05}-of-00003.gguf" for n in (1, 2, 3)]
    assert pulled.facts.tensor_count == 22
    del hub.files["Q4_K_M/big-Q4_K_M-00002-of-00003.gguf"]
    with pytest.raises(NotOnHubError, match="only 2 of the 3 parts"):
        await _pull(hub, models)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_passing_faults_are_tried_again(status: int, hub: MockHub, models: Path):
    hub.statuses = [(status, {"retry-after": "0"})] * 2
    hub.storage_statuses = [status, status]
    assert (await _pull(hub, models)).path.read_bytes() == CONTENT


async def test_a_hub_that_stays_broken_is_given_up(hub: MockHub, models: Path):
    hub.statuses = [(500, {})] * 50
    with pytest.raises(PullError, match=r"gave up after 6 attempts .* the hub answered 500"):
        await _pull(hub, models)
    assert len(hub.requests) == 6


async def test_nobody_there_is_given_up(models: Path):
    with pytest.raises(PullError, match=r"the connection to 127.0.0.1 failed \(ConnectError\)"):
        await pull(REPOSITORY, "Q4_K_M", models=models, endpoint="http://127.0.0.1:9", environ={}, retry_wait_s=0.001)


async def test_what_is_not_there_is_said_with_what_is(hub: MockHub, models: Path):
    with pytest.raises(NotOnHubError, match=r"has no 'Q5_K_M': it has Q4_K_M, Q8_0"):
        await _pull(hub, models, "Q5_K_M")
    with pytest.raises(NotOnHubError, match="404: no such repository"):
        await pull("some/other", "Q4_K_M", models=models, endpoint=hub.endpoint, environ={})
    for name in ("no-slash", "../../etc/passwd", "a/b/c", "a/b?x", ""):
        with pytest.raises(NotOnHubError, match="not a repository name"):
            await pull(name, "Q4_K_M", models=models, endpoint=hub.endpoint, environ={})
    hub.statuses = [(401, {})]
    with pytest.raises(NotOnHubError, match="set HF_TOKEN"):
        await _pull(hub, models)


async def test_a_quantisation_is_found_by_name_in_any_case_and_never_by_a_piece_of_it(hub: MockHub, models: Path):
    hub.files = {"m.Q4_K_M.gguf": CONTENT, "m.Q4_K_S.gguf": b"1", "m.IQ4_XS.gguf": b"2", "m.f16.gguf": b"3"}
    assert (await _pull(hub, models, "q4_k_m")).path.name == "m.Q4_K_M.gguf"
    assert (await _pull(hub, models, "m.Q4_K_M.gguf")).path.name == "m.Q4_K_M.gguf"
    with pytest.raises(NotOnHubError, match="has no 'Q4_K'"):
        await _pull(hub, models, "Q4_K")
    hub.files["other.Q4_K_M.gguf"] = b"4"
    with pytest.raises(NotOnHubError, match="several q4_k_m files, name one"):
        await _pull(hub, models, "q4_k_m")


@pytest.mark.parametrize(
    "metadata",
    [
        b"", b"<html>", b"[]", b"{}", b'{"sha": 1, "siblings": []}', b'{"sha": "zz/../x", "siblings": []}',
        b'{"sha": "' + b"a" * 40 + b'", "siblings": [{"rfilename": 5}]}', b"[" * 100_000,
    ],
)  # fmt: skip
async def test_a_description_that_makes_no_sense_is_an_error(metadata: bytes, hub: MockHub, models: Path):
    hub.metadata = metadata
    with pytest.raises(PullError, match=r"not what this release understands|names no commit"):
        await _pull(hub, models)


@pytest.mark.parametrize(
    "path", ["../m.Q4_K_M.gguf", "/m.Q4_K_M.gguf", "a/../../m.Q4_K_M.gguf", "a\\m.Q4_K_M.gguf", "\0Q4_K_M.gguf"]
)
async def test_no_path_of_the_hub_leads_out_of_the_folder(path: str, hub: MockHub, models: Path):
    row = {"rfilename": path, "lfs": {"sha256": "ab" * 32, "size": 10}}
    hub.metadata = json.dumps({"sha": "a" * 40, "siblings": [row]}).encode()
    with pytest.raises(NotOnHubError, match="no GGUF files with checksums"):
        await _pull(hub, models)


async def test_a_file_without_a_checksum_is_not_downloaded(hub: MockHub, models: Path):
    row = {"rfilename": NAME, "lfs": {"sha256": "short", "size": 10}}
    hub.metadata = json.dumps({"sha": "a" * 40, "siblings": [row]}).encode()
    with pytest.raises(NotOnHubError, match="no GGUF files with checksums"):
        await _pull(hub, models)


async def test_the_token_goes_to_the_hub_and_to_nobody_else(hub: MockHub, models: Path):
    await _pull(hub, models, environ={"HF_TOKEN": "hf_planted"})
    for path, headers in hub.requests:
        assert headers.get("authorization") == (None if path.startswith("/storage/") else "Bearer hf_planted")
    assert [path for path, _ in hub.requests if path.startswith("/storage/")]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("http://huggingface.co/x", "not https"),
        ("https://evil.example/x", "evil.example, which is not one of its hosts"),
        ("https://huggingface.co.evil.example/x", "not one of its hosts"),
        ("https://nothuggingface.co/x", "not one of its hosts"),
        ("https://169.254.169.254/latest/meta-data", "not one of its hosts"),
        ("file:///etc/passwd", "not https"),
        ("ftp://huggingface.co/x", "not https"),
    ],
)
async def test_a_redirect_elsewhere_is_not_followed(target: str, words: str, hub: MockHub, models: Path):
    hub.redirect_to = target
    with pytest.raises(PullError, match=words):
        await _pull(hub, models, environ={"HF_TOKEN": "hf_planted"})


async def test_redirects_in_a_circle_end(hub: MockHub, models: Path):
    hub.redirect_to = f"{hub.endpoint}/{REPOSITORY}/resolve/{COMMIT}/{NAME}"
    with pytest.raises(PullError, match="redirected more than 5 times"):
        await _pull(hub, models)


async def test_nothing_is_asked_when_offline(hub: MockHub, models: Path):
    for value in ("1", "true", "YES", "on"):
        with pytest.raises(OfflineError, match="HF_HUB_OFFLINE is set"):
            await _pull(hub, models, environ={"HF_HUB_OFFLINE": value})
    assert hub.requests == []
    assert not _part(models).parent.exists()


async def test_the_endpoint_comes_from_the_environment_and_must_be_https(hub: MockHub, models: Path):
    assert (await _pull(hub, models, endpoint=None, environ={"HF_ENDPOINT": hub.endpoint + "/"})).path.exists()
    with pytest.raises(PullError, match="not an https URL"):
        await _pull(hub, models, endpoint="http://hub.example")


async def test_two_downloads_at_a_time_are_one_too_many(hub: MockHub, models: Path):
    hub.stalls_after = MIB
    first = asyncio.create_task(_pull(hub, models))
    async with asyncio.timeout(30):
        await hub.has_sent.wait()
    with pytest.raises(PullBusyError, match="another `mixgate pull` is running"):
        await _pull(hub, models)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    hub.stalls_after = None
    assert (await _pull(hub, models)).path.exists()


async def test_a_repository_known_not_to_load_is_refused_without_asking(hub: MockHub, models: Path):
    with pytest.raises(PullError, match=r"does not load: one tensor per expert.*mradermacher"):
        await pull(
            "thebloke/mixtral-8x7b-instruct-v0.1-gguf", "Q4_K_M", models=models, endpoint=hub.endpoint, environ={}
        )
    assert hub.requests == []


async def test_a_file_that_cannot_load_is_refused_after_its_header_not_after_26_gb(hub: MockHub, models: Path):
    bad = Draft(width=256, inner=512, layers=8)
    del bad.values["tokenizer.chat_template"]
    hub.files[NAME] = bad.encode()
    hub.stalls_after = 17 * MIB
    assert len(hub.files[NAME]) > 20 * MIB
    with pytest.raises(BadFileError, match="no chat template"):
        await _pull(hub, models)
    assert _names(models) == set()


async def test_a_folder_that_cannot_be_made_is_said(hub: MockHub, tmp_path: Path):
    (tmp_path / "file").write_text("in the way", encoding="ascii")
    with pytest.raises(PullError, match=r"cannot be written: Not a directory\. Set MIXGATE_HOME"):
        await _pull(hub, tmp_path / "file" / "models")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
async def test_a_folder_that_is_read_only_is_said_before_the_hub_is_asked(
    number: int, hub: MockHub, models: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(PullError, match=r"cannot be written: .* Set MIXGATE_HOME to a folder") as told:
        await _pull(hub, models)
    assert os.strerror(number) in told.value.message
    assert not hub.requests


def test_a_reference_is_a_repository_and_a_quantisation():
    assert parse_reference(EXAMPLE) == ("mradermacher/Mixtral-8x7B-Instruct-v0.1-GGUF", "Q4_K_M")
    for text in ("", "mixtral", "owner/name", "owner/name:", "name:Q4_K_M", "https://hub.example/x"):
        with pytest.raises(PullError, match="owner/name:QUANTISATION"):
            parse_reference(text)
