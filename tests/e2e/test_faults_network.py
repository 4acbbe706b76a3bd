"""Names that do not resolve, certificates that are not good, TLS that is cut: class connect, failover, no exception."""

import asyncio
import socket
import ssl
import subprocess
import threading

import pytest

from tests.fakes.duo import Place, fan_config, shortened
from tests.fakes.gateway import chat, running_gateway
from tests.fakes.listener import FULL, listen
from tests.fakes.scripted import STORY, TEXT, resets, scripted, tells

ASK = chat("Tell it.", stream=True)
ISSUER_SETTINGS = """
[ca]
default_ca = test
[test]
new_certs_dir = .
database = index
serial = serial
default_md = sha256
policy = any
copy_extensions = copy
[any]
commonName = supplied
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
"""


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


def make_key(folder, name):
    openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")


def make_issuer(folder, name):
    make_key(folder, name)
    subject = ["-subj", f"/CN={name}", "-key", f"{name}.key", "-out", f"{name}.pem"]
    openssl(folder, "req", "-x509", "-new", "-days", "2", "-config", "issuer.cnf", "-extensions", "authority", *subject)


def make_certificate(folder, name, *, host, issuer="authority", years=("20200101000000Z", "20990101000000Z")):
    """A certificate for a host (a name, or an address as `IP:127.0.0.1`), valid between two moments."""
    make_key(folder, name)
    alternative = f"subjectAltName = {host}"
    subject = ["-subj", f"/CN={name}", "-key", f"{name}.key", "-out", f"{name}.csr"]
    openssl(folder, "req", "-new", "-config", "issuer.cnf", "-addext", alternative, *subject)
    signing = ["-cert", f"{issuer}.pem", "-keyfile", f"{issuer}.key", "-startdate", years[0], "-enddate", years[1]]
    openssl(
        folder,
        "ca",
        "-batch",
        "-config",
        "issuer.cnf",
        *signing,
        "-notext",
        "-in",
        f"{name}.csr",
        "-out",
        f"{name}.pem",
    )


CERTIFICATES = {
    "good": {"host": "IP:127.0.0.1"},
    "expired": {"host": "IP:127.0.0.1", "years": ("20200101000000Z", "20210101000000Z")},
    "not-yet": {"host": "IP:127.0.0.1", "years": ("20980101000000Z", "20990101000000Z")},
    "wrong-host": {"host": "DNS:somebody-else.example"},
    "wrong-issuer": {"host": "IP:127.0.0.1", "issuer": "stranger"},
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "issuer.cnf").write_text(ISSUER_SETTINGS)
    (folder / "index").touch()
    (folder / "serial").write_text("01\n")
    for issuer in ("authority", "stranger"):
        make_issuer(folder, issuer)
    for name, facts in CERTIFICATES.items():
        make_certificate(folder, name, **facts)
    return folder


def tls_of(folder, name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


def url_of(port, scheme="https", host="127.0.0.1"):
    return f"{scheme}://{host}:{port}/v1"


async def answered_by_the_other(folder, url, *, connect_timeout_s=None):
    """Asks where the first provider is at that URL, and the second is good. Gives what was told."""
    async with scripted(tells()) as good:
        config = fan_config({"m": url}, Place(good.base_url))
        async with running_gateway(config, folder, limits=shortened()) as running:
            if connect_timeout_s is not None:
                running.gateway.live.fleet().upstreams["m/up"].connect_timeout_s = connect_timeout_s
            told = await listen(running.client, ASK)
            assert told.complete, told.body
            assert told.text == TEXT
            assert told.chunks[-1]["provider"] == "good"
            only = await running.client.post("/v1/chat/completions", json={**chat(), "model": "m-only"})
            return told, only


def check_connect_error(only):
    error = only.json()["error"]
    assert (only.status_code, error["code"], error["source"]) == (502, "connect_failed", "provider")


@pytest.mark.parametrize("name", [name for name in CERTIFICATES if name != "good"])
async def test_a_certificate_that_is_not_good_is_never_talked_to(tmp_path, monkeypatch, certificates, name):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "authority.pem"))
    async with scripted(tells(), tls=tls_of(certificates, name)) as bad:
        _, only = await answered_by_the_other(tmp_path, url_of(bad.port))
    check_connect_error(only)
    assert bad.calls == []


async def test_a_good_certificate_is_talked_to(tmp_path, monkeypatch, certificates):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "authority.pem"))
    async with scripted(tells(), tls=tls_of(certificates, "good")) as first, scripted(tells()) as other:
        async with running_gateway(fan_config({"m": url_of(first.port)}, Place(other.base_url)), tmp_path) as running:
            told = await listen(running.client, ASK)
    assert told.complete
    assert told.chunks[-1]["provider"] == "m"
    assert other.calls == []


@pytest.mark.parametrize("after", [0, 1, 30])
async def test_tls_that_is_cut_in_the_answer_is_no_end_of_it(tmp_path, monkeypatch, certificates, after):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "authority.pem"))
    script = tells(stop_after=after) if after else resets()
    async with scripted(script, tls=tls_of(certificates, "good")) as cut, scripted(tells()) as other:
        async with running_gateway(fan_config({"m": url_of(cut.port)}, Place(other.base_url)), tmp_path) as running:
            told = await listen(running.client, ASK)
            assert told.complete
            assert told.text == TEXT
            broken = await listen(running.client, {**ASK, "model": "m-only"})
            if after:
                assert (broken.error["code"], broken.text) == ("answer_truncated", "".join(STORY[:after]))
            else:
                assert broken.error["code"] == "connection_reset"


HANDSHAKES = {
    "closes": None,
    "plain HTTP": b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
    "noise": bytes(range(256)),
    "an alert": b"\x15\x03\x03\x00\x02\x02\x28",
}


@pytest.mark.parametrize("says", HANDSHAKES.values(), ids=HANDSHAKES)
async def test_a_handshake_that_comes_to_nothing_is_a_failure_to_connect(tmp_path, says):
    async def shake(reader, writer):
        await reader.read(64)
        if says is not None:
            writer.write(says)
        writer.close()

    server = await asyncio.start_server(shake, "127.0.0.1", 0)
    async with server:
        _, only = await answered_by_the_other(tmp_path, url_of(server.sockets[0].getsockname()[1]))
    check_connect_error(only)


async def test_a_handshake_that_never_ends_is_a_failure_to_connect(tmp_path):
    held = []

    async def hold(_, writer):
        held.append(writer)

    limit_s = 5.0 if FULL else 0.5
    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    async with server:
        url = url_of(server.sockets[0].getsockname()[1])
        told, only = await answered_by_the_other(tmp_path, url, connect_timeout_s=limit_s)
        for writer in held:
            writer.transport.abort()
    check_connect_error(only)
    assert limit_s <= told.elapsed_s <= 2 * limit_s + 1.5


async def test_a_name_that_nobody_has_is_a_failure_to_connect(tmp_path, monkeypatch):
    known = socket.getaddrinfo

    def unknown(host, *arguments, **named):
        if host == "nobody.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return known(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    told, only = await answered_by_the_other(tmp_path, "http://nobody.invalid:1/v1")
    check_connect_error(only)
    assert told.elapsed_s <= 2.0


async def test_a_name_that_takes_for_ever_is_a_failure_to_connect(tmp_path, monkeypatch):
    known, released = socket.getaddrinfo, threading.Event()

    def slow(host, *arguments, **named):
        if host == "slow.invalid":
            released.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return known(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    limit_s = 5.0 if FULL else 0.5
    try:
        told, only = await answered_by_the_other(tmp_path, "http://slow.invalid:1/v1", connect_timeout_s=limit_s)
    finally:
        released.set()
    check_connect_error(only)
    assert limit_s <= told.elapsed_s <= 2 * limit_s + 1.5


async def test_a_name_that_moved_is_asked_for_at_its_new_place(tmp_path, monkeypatch):
    known, place = socket.getaddrinfo, ["127.0.0.2"]

    def moving(host, *arguments, **named):
        return known(place[0] if host == "moving.invalid" else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", moving)
    async with scripted(tells()) as provider, scripted(tells()) as other:
        url = url_of(provider.port, "http", "moving.invalid")
        async with running_gateway(fan_config({"m": url}, Place(other.base_url)), tmp_path) as running:
            assert (await listen(running.client, ASK)).chunks[-1]["provider"] == "good"
            place[0] = "127.0.0.1"
            assert (await listen(running.client, ASK)).chunks[-1]["provider"] == "m"
