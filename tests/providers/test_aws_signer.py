"""Signatures equal those of botocore's own client; credentials come from its chain, found and renewed off the loop."""

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import botocore.auth
import botocore.session
import pytest
from botocore.config import Config
from botocore.credentials import RefreshableCredentials

import providers.aws_signer
from providers.aws_signer import LOOK_AGAIN_AFTER_S, SEARCH_AGAIN_AFTER_S, AwsSigner, find_credentials
from providers.base import WireRequest
from providers.errors import CredentialsError

NOW_UNIX_S = 1_795_305_600.0
MODELS = (
    "mistral.mixtral-8x7b-instruct-v0:1",
    "us.mistral.pixtral-large-2502-v1:0",
    "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.mistral.pixtral-large-2502-v1:0",
)
HEADERS = {"content-type": "application/json", "accept": "application/json"}


@pytest.fixture(autouse=True)
def no_aws(monkeypatch, tmp_path):
    """A machine without AWS credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


@pytest.fixture
def keys(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")


def request(model=MODELS[0], body=b'{"messages":[]}', region="us-east-1"):
    path = model.replace(":", "%3A").replace("/", "%2F")
    url = f"https://bedrock-runtime.{region}.amazonaws.com/model/{path}/converse"
    return WireRequest(url=url, body=body, headers=HEADERS)


def sent_by_botocore(model, region, monkeypatch):
    """The request that botocore's client puts on the wire at NOW_UNIX_S."""
    moment = datetime.fromtimestamp(NOW_UNIX_S, UTC).replace(tzinfo=None)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: moment)
    client = botocore.session.Session().create_client(
        "bedrock-runtime", region_name=region, config=Config(retries={"total_max_attempts": 1})
    )
    seen = []

    def keep(request, **_):
        seen.append(request)
        return SimpleNamespace(status_code=200, headers={}, content=b"{}", raw=None)

    client.meta.events.register("before-send.bedrock-runtime.Converse", keep)
    client.converse(modelId=model, messages=[{"role": "user", "content": [{"text": "h\u00e9"}]}])
    return seen[0]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("region", ["us-east-1", "eu-west-3"])
@pytest.mark.parametrize("session_token", [None, "FwoGZXIvYXdzEJr//////////wEaDExample=="])
async def test_a_signature_is_the_one_of_botocores_own_client(model, region, session_token, keys, monkeypatch):
    if session_token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", session_token)
    theirs = await asyncio.to_thread(sent_by_botocore, model, region, monkeypatch)
    covered = theirs.headers["Authorization"].decode().partition("SignedHeaders=")[2].partition(",")[0].split(";")
    headers = {name: theirs.headers[name] for name in covered if not name.startswith(("x-amz-", "host"))}
    headers = {name: value.decode() if isinstance(value, bytes) else value for name, value in headers.items()}
    ours = await AwsSigner(region).sign(
        WireRequest(url=theirs.url, body=theirs.body, headers=headers), now_unix_s=NOW_UNIX_S
    )
    assert ours.headers["authorization"] == theirs.headers["Authorization"].decode()
    assert ours.headers["x-amz-date"] == theirs.headers["X-Amz-Date"].decode()
    assert ours.headers.get("x-amz-security-token") == session_token
    assert theirs.url == request(model, region=region).url


async def test_signing_adds_headers_and_changes_nothing_else(keys):
    asked = request()
    signed = await AwsSigner("us-east-1").sign(asked, now_unix_s=NOW_UNIX_S)
    assert (signed.url, signed.body, signed.method, signed.stream) == (
        asked.url,
        asked.body,
        asked.method,
        asked.stream,
    )
    assert set(signed.headers) == {*HEADERS, "x-amz-date", "authorization"}
    assert "accept;content-type;host;x-amz-date" in signed.headers["authorization"]
    assert set(asked.headers) == set(HEADERS)


async def test_a_large_body_is_signed_alike(keys):
    body = b"x" * 3_000_000
    small = await AwsSigner("us-east-1").sign(request(body=body), now_unix_s=NOW_UNIX_S)
    frozen = SimpleNamespace(
        access_key="AKIDEXAMPLE", secret_key="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token=None
    )
    expected = providers.aws_signer._signature(request(body=body), frozen, "us-east-1", NOW_UNIX_S)
    assert small.headers["authorization"] == expected["authorization"]


async def test_a_bearer_key_replaces_the_signature():
    signer = AwsSigner("us-east-1", bearer_key="bedrock-api-key-x")
    assert await signer.has_credentials()
    signed = await signer.sign(request(), now_unix_s=NOW_UNIX_S)
    assert signed.headers == {**HEADERS, "authorization": "Bearer bedrock-api-key-x"}


async def test_a_profile_of_the_shared_files_is_used(tmp_path, keys):
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id = AKIDWORK\naws_secret_access_key = s3cret\n")
    signed = await AwsSigner("us-east-1", profile="work").sign(request(), now_unix_s=NOW_UNIX_S)
    assert "Credential=AKIDWORK/" in signed.headers["authorization"]
    assert find_credentials("work") == "shared-credentials-file"


async def test_keys_that_were_exchanged_in_the_file_are_taken_up_behind_the_scenes(tmp_path):
    written = "[default]\naws_access_key_id = {}\naws_secret_access_key = s\naws_session_token = t\n"
    (tmp_path / "credentials").write_text(written.format("AKIDOLD"))
    signer = AwsSigner("us-east-1")
    first = await signer.sign(request(), now_unix_s=NOW_UNIX_S)
    (tmp_path / "credentials").write_text(written.format("AKIDNEW"))
    signer._found_s -= LOOK_AGAIN_AFTER_S + 1
    second = await signer.sign(request(), now_unix_s=NOW_UNIX_S)
    await signer._work
    third = await signer.sign(request(), now_unix_s=NOW_UNIX_S)
    (tmp_path / "credentials").unlink()
    signer._found_s -= LOOK_AGAIN_AFTER_S + 1
    await signer.sign(request(), now_unix_s=NOW_UNIX_S)
    await signer._work
    fourth = await signer.sign(request(), now_unix_s=NOW_UNIX_S)
    used = [one.headers["authorization"].partition("=")[2].partition("/")[0] for one in (first, second, third, fourth)]
    assert used == ["AKIDOLD", "AKIDOLD", "AKIDNEW", "AKIDNEW"]


async def test_a_credential_process_is_run(tmp_path):
    said = {"Version": 1, "AccessKeyId": "AKIDPROCESS", "SecretAccessKey": "s", "SessionToken": "t"}
    (tmp_path / "said.json").write_text(json.dumps(said))
    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {tmp_path / 'said.json'}\n")
    signed = await AwsSigner("us-east-1").sign(request(), now_unix_s=NOW_UNIX_S)
    assert "Credential=AKIDPROCESS/" in signed.headers["authorization"]
    assert signed.headers["x-amz-security-token"] == "t"


async def test_no_credentials_is_an_error_that_says_what_to_do():
    signer = AwsSigner("us-east-1")
    assert not await signer.has_credentials()
    assert find_credentials(None) is None
    with pytest.raises(CredentialsError, match="mixgate check"):
        await signer.sign(request(), now_unix_s=NOW_UNIX_S)


async def test_an_unknown_profile_is_an_error_and_is_not_searched_for_again_at_once(monkeypatch):
    searches = []
    real = providers.aws_signer._find
    monkeypatch.setattr(
        providers.aws_signer, "_find", lambda profile, source: (searches.append(profile), real(profile, source))[1]
    )
    signer = AwsSigner("us-east-1", profile="nobody")
    for _ in range(3):
        with pytest.raises(CredentialsError, match="ProfileNotFound"):
            await signer.sign(request(), now_unix_s=NOW_UNIX_S)
    assert searches == ["nobody"]
    signer._failed_s -= SEARCH_AGAIN_AFTER_S
    assert not await signer.has_credentials()
    assert searches == ["nobody", "nobody"]


async def test_everybody_waits_for_one_search_and_nobody_else_waits(monkeypatch):
    started, go_on = threading.Event(), threading.Event()
    searches = []

    def slow(profile, source):
        searches.append(profile)
        started.set()
        assert go_on.wait(20)
        frozen = SimpleNamespace(access_key="AKID", secret_key="s", token=None)
        return SimpleNamespace(get_frozen_credentials=lambda: frozen), frozen

    monkeypatch.setattr(providers.aws_signer, "_find", slow)
    signer = AwsSigner("us-east-1")
    waiting = [asyncio.create_task(signer.sign(request(), now_unix_s=NOW_UNIX_S)) for _ in range(20)]
    turns = 0
    while not started.is_set() or turns < 100:
        await asyncio.sleep(0)
        turns += 1
    waiting[0].cancel()
    await asyncio.sleep(0)
    go_on.set()
    signed = await asyncio.gather(*waiting[1:])
    assert searches == [None]
    assert all("Credential=AKID/" in one.headers["authorization"] for one in signed)
    assert waiting[0].cancelled()


class Renewed:
    """Credentials that run out, as botocore renews them."""

    def __init__(self, lasts_s):
        self.count = 0
        self.lasts_s = lasts_s
        self.source = RefreshableCredentials.create_from_metadata(self.fetch(), self.fetch, method="test")

    def fetch(self):
        self.count += 1
        ends = datetime.now(UTC) + timedelta(seconds=self.lasts_s)
        return {
            "access_key": f"AKID{self.count}",
            "secret_key": "s",
            "token": "t",
            "expiry_time": ends.isoformat(),
        }


async def test_credentials_that_run_out_soon_are_renewed_behind_the_scenes(monkeypatch):
    renewed = Renewed(lasts_s=12 * 60)
    signer = AwsSigner("us-east-1")
    signer._source = renewed.source
    signer._frozen = await asyncio.to_thread(lambda: renewed.source._frozen_credentials)
    renewed.lasts_s = 3600
    first = await signer.sign(request(), now_unix_s=NOW_UNIX_S)
    assert "AKID1/" in first.headers["authorization"]
    assert signer._work is not None
    await signer._work
    second = await signer.sign(request(), now_unix_s=NOW_UNIX_S)
    assert "AKID2/" in second.headers["authorization"]
    assert renewed.count == 2


async def test_credentials_that_have_run_out_are_waited_for():
    renewed = Renewed(lasts_s=5)
    signer = AwsSigner("us-east-1")
    signer._source = renewed.source
    signer._frozen = renewed.source._frozen_credentials
    renewed.lasts_s = 3600
    signed = await signer.sign(request(), now_unix_s=NOW_UNIX_S)
    assert "AKID2/" in signed.headers["authorization"]


async def test_a_search_that_hangs_is_given_up_and_not_waited_for_twice(monkeypatch):
    go_on = threading.Event()
    monkeypatch.setattr(providers.aws_signer, "_find", lambda *_: (go_on.wait(20), (None, None))[1])
    monkeypatch.setattr(providers.aws_signer, "SEARCH_TIMEOUT_S", 0.05)
    signer = AwsSigner("us-east-1")
    try:
        with pytest.raises(CredentialsError, match="no AWS credentials within"):
            await signer.sign(request(), now_unix_s=NOW_UNIX_S)
        began_s = time.monotonic()
        with pytest.raises(CredentialsError):
            await signer.sign(request(), now_unix_s=NOW_UNIX_S)
        assert time.monotonic() - began_s < 5
    finally:
        go_on.set()
        await signer._work


def test_a_search_that_hangs_does_not_hold_up_the_end_of_the_process():
    program = textwrap.dedent("""
        import asyncio, time
        import providers.aws_signer
        from providers.aws_signer import AwsSigner

        async def main():
            providers.aws_signer._find = lambda *_: time.sleep(600)
            asyncio.create_task(AwsSigner("us-east-1").has_credentials())
            await asyncio.sleep(0.1)

        asyncio.run(main())
    """)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_importing_the_dialects_and_the_gateway_does_not_import_botocore():
    program = textwrap.dedent("""
        import sys
        import providers, providers.aws_signer, gateway.app
        from providers.aws_signer import AwsSigner
        AwsSigner("us-east-1")
        print([name for name in sys.modules if name.startswith("botocore")])
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
