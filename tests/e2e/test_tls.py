"""https: by the gateway itself with a certificate of a throw-away authority, and by nginx in front of it."""

import asyncio
import shutil
import ssl
import subprocess
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI

from gateway.config.load import load
from gateway.errors import ConfigError
from gateway.server.auth import Authenticator
from gateway.server.tls import Certificate
from tests.fakes.authority import Authority
from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.process import started
from tests.fakes.provider import fake_provider, says, stream_chunks, streams

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
KEY = "client-key-000000"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority):
    return authority.sign("gateway")


async def listening(process):
    return (await process.until(r"base URL\s+(https://\S+)/v1")).group(1)


def sdk(url, authority):
    client = httpx.AsyncClient(verify=authority.context(), trust_env=False)
    return AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, http_client=client, max_retries=0)


async def test_the_openai_sdk_is_answered_over_https_and_a_new_certificate_needs_no_restart(tmp_path, authority):
    cert, key = (shutil.copy(path, tmp_path) for path in authority.sign("first"))
    path = tmp_path / "providers.yaml"
    async with fake_provider(says("fine"), streams(*stream_chunks("a b c"))) as provider:
        path.write_text(f"gateway: {{tls: {{cert: {cert}, key: {key}}}}}\n" + openai_config(provider.base_url))
        async with started(path, "--port", "0") as process:
            url = await listening(process)
            async with sdk(url, authority) as client:
                whole = await client.chat.completions.create(**chat())
                assert whole.choices[0].message.content == "fine"
                stream = await client.chat.completions.create(**chat(stream=True))
                text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
                assert text.split() == ["a", "b", "c"]
            await told_in_plain_words(url)
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                async with httpx.AsyncClient(trust_env=False) as stranger:
                    await stranger.get(f"{url}/livez")
            assert await name_of(url, authority) == "first"
            replace(authority.sign("second"), cert, key)
            await process.until("certificate was read anew", "errors")
            assert await name_of(url, authority) == "second"


def replace(pair, cert, key):
    """Both files at once, as one who renews certificates does."""
    for new, old in zip(pair, (cert, key), strict=True):
        shutil.copy(new, f"{old}.new")
    for old in (cert, key):
        Path(f"{old}.new").replace(old)


async def name_of(url, authority):
    """The certificate's common name."""
    host, port = url.removeprefix("https://").split(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=authority.context(), server_hostname=host)
    found = dict(pair[0] for pair in writer.get_extra_info("peercert")["subject"])["commonName"]
    writer.close()
    await writer.wait_closed()
    return found


async def told_in_plain_words(url):
    async with httpx.AsyncClient(trust_env=False) as plain:
        for method in ("GET", "POST", "HEAD"):
            told = await plain.request(method, url.replace("https", "http") + "/v1/models")
            assert told.status_code == 400
            if method != "HEAD":
                assert told.text == "This port speaks TLS: use https://, not http://.\n"


def test_a_changed_certificate_that_is_no_good_is_refused_and_the_old_one_stays(tmp_path, authority, caplog):
    cert, key = (Path(shutil.copy(path, tmp_path)) for path in authority.sign("first"))
    caplog.set_level("INFO")
    certificate = Certificate(cert, key)
    assert certificate.context.minimum_version >= ssl.TLSVersion.TLSv1_2
    before = certificate.context.cert_store_stats()
    assert not certificate.refresh()
    key.write_text("broken")
    assert not certificate.refresh()
    assert not certificate.refresh()
    key.unlink()
    assert not certificate.refresh()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the changed certificate is refused, the old one stays"
    ] * 2
    replace(authority.sign("second"), cert, key)
    assert certificate.refresh()
    assert certificate.context.cert_store_stats() == before


@pytest.mark.parametrize(
    ("cert", "key", "words"),
    [
        ("gateway.pem", "other.key", "do not belong together"),
        ("gateway.key", "gateway.key", "is not PEM, or broken"),
        ("gateway.pem", "gateway.pem", "is not PEM, or broken"),
        ("gateway.pem", "locked.key", "locked by a passphrase"),
        ("gateway.pem", "missing.key", "cannot be read: No such file"),
    ],
)
def test_what_cannot_be_used_is_refused_with_words(authority, pair, cert, key, words):
    authority.sign("other")
    encrypt = [
        "openssl",
        "ec",
        "-in",
        pair[1],
        "-out",
        authority.folder / "locked.key",
        "-aes256",
        "-passout",
        "pass:x",
    ]
    subprocess.run(encrypt, check=True, capture_output=True)
    with pytest.raises(ConfigError, match=words) as caught:
        Certificate(authority.folder / cert, authority.folder / key)
    assert caught.value.problems[0].fix
    assert "PRIVATE" not in str(caught.value).replace("BEGIN PRIVATE KEY", "")


async def test_a_gateway_does_not_start_with_a_wrong_key(tmp_path, authority, pair):
    _, other = authority.sign("other")
    path = tmp_path / "providers.yaml"
    path.write_text(f"gateway: {{tls: {{cert: {pair[0]}, key: {other}}}}}\n" + openai_config("http://127.0.0.1:9/v1"))
    async with started(path, "--port", "0") as process:
        assert await process.exit_code() == 2
    assert "do not belong together" in process.errors
    assert "Traceback" not in process.errors


# ---- nginx in front


@contextmanager
def nginx(folder, gateway_url, pair, port):
    """Ends TLS on a port, and says for whom it asks."""
    places = "".join(f"{one}_temp_path {folder}/{one};" for one in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(f"""
daemon off; pid {folder}/pid; error_log stderr; events {{}}
http {{ access_log off; {places}
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {pair[0]}; ssl_certificate_key {pair[1]};
    location / {{
      proxy_pass {gateway_url}; proxy_bind 127.0.0.2; proxy_http_version 1.1;
      proxy_buffering off; proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
    }}
  }}
}}""")
    command = [str(NGINX), "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            yield f"https://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.communicate(timeout=15)


async def until_listening(url, authority):
    async with asyncio.timeout(15), httpx.AsyncClient(verify=authority.context(), trust_env=False) as client:
        while True:
            try:
                return await client.get(f"{url}/livez")
            except httpx.TransportError:
                await asyncio.sleep(0.05)


@pytest.fixture
def seen(monkeypatch):
    """Client and scheme of every request, as the gateway takes them."""
    found, check = [], Authenticator.check

    def spy(self, scope):
        found.append((scope["client"][0], scope["scheme"]))
        return check(self, scope)

    monkeypatch.setattr(Authenticator, "check", spy)
    return found


GATEWAY = "gateway: {{client_keys: [env:CLIENT], trusted_proxies: [{}]}}\n"


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed: `make packages` installs it as root")
@pytest.mark.parametrize(
    ("trusted", "client", "scheme"), [("127.0.0.2", "127.0.0.1", "https"), ("10.0.0.0/8", "127.0.0.2", "http")]
)
async def test_behind_nginx_with_tls(tmp_path, authority, pair, seen, unused_tcp_port, trusted, client, scheme):
    async with fake_provider(says("fine")) as provider:
        config = GATEWAY.format(trusted) + openai_config(provider.base_url)
        async with running_gateway(config, tmp_path, {"CLIENT": KEY}) as running:
            with nginx(tmp_path, running.url, pair, unused_tcp_port) as url:
                assert (await until_listening(url, authority)).status_code == 200
                async with sdk(url, authority) as asking:
                    answer = await asking.chat.completions.create(**chat())
                assert answer.choices[0].message.content == "fine"
                assert seen[-1] == (client, scheme)
                async with httpx.AsyncClient(verify=authority.context(), trust_env=False) as forger:
                    forged = {"x-forwarded-for": "198.51.100.7", "x-forwarded-proto": "https"}
                    assert (await forger.get(f"{url}/v1/models", headers=forged)).status_code == 401
                assert seen[-1] == (client, scheme), "nginx put the true address behind the forged one"


async def test_whoever_is_no_proxy_is_not_believed(tmp_path, seen):
    forged = {"x-forwarded-for": "198.51.100.7", "x-forwarded-proto": "https", "authorization": f"Bearer {KEY}"}
    async with fake_provider() as provider:
        config = GATEWAY.format("192.0.2.0/24") + openai_config(provider.base_url)
        async with running_gateway(config, tmp_path, {"CLIENT": KEY}) as running:
            assert (await running.client.get("/v1/models", headers=forged)).status_code == 200
            assert seen == [("127.0.0.1", "http")]
            changed = config.replace("192.0.2.0/24", "127.0.0.0/8")
            (tmp_path / "changed.yaml").write_text(changed)
            running.gateway.replace(load(tmp_path / "changed.yaml", {"CLIENT": KEY}))
            assert (await running.client.get("/v1/models", headers=forged)).status_code == 200
            assert seen[-1] == ("198.51.100.7", "https")


async def test_a_trusted_proxy_opens_nothing_where_there_are_no_keys(tmp_path):
    async with fake_provider() as provider:
        config = "gateway: {trusted_proxies: [127.0.0.1]}\n" + openai_config(provider.base_url)
        async with running_gateway(config, tmp_path) as running:
            assert (await running.client.get("/v1/models")).status_code == 200
            for headers in (
                {"x-forwarded-for": "127.0.0.1"},
                {"x-forwarded-proto": "http"},
                {"forwarded": "for=127.0.0.1"},
            ):
                assert (await running.client.get("/v1/models", headers=headers)).status_code == 403
