"""Listening: where it is refused, and with which words."""

import socket

import pytest

from gateway.errors import ConfigError
from gateway.server.lifecycle import Lifecycle
from gateway.server.run import EdgeServer, ServerSettings, bind_sockets


async def nothing(_scope, _receive, _send):
    """An application that is never asked."""


def test_a_free_port_is_bound():
    (sock,) = bind_sockets("127.0.0.1", 0)
    with sock:
        assert sock.getsockname()[1] > 0


def test_localhost_may_stand_for_several_addresses_with_one_port():
    sockets = bind_sockets("localhost", 0)
    assert len({sock.getsockname()[1] for sock in sockets}) == 1
    for sock in sockets:
        sock.close()


def test_a_port_in_use_is_named_with_a_way_out():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"Port {port} .*in use") as caught:
            bind_sockets("127.0.0.1", port)
    assert "--port" in caught.value.problems[0].fix


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("192.0.2.1", 0, "no address of this machine"),
        ("no-such-host.invalid", 0, "not a host name or address"),
        ("127.0.0.1", 70000, "no port"),
        ("127.0.0.1", -1, "no port"),
    ],
)
def test_a_place_that_cannot_be_listened_on_is_explained(host, port, words):
    with pytest.raises(ConfigError, match=words):
        bind_sockets(host, port)


async def test_a_certificate_that_cannot_be_read_is_a_configuration_error(tmp_path):
    bad = tmp_path / "cert.pem"
    bad.write_text("nonsense")
    for cert in (bad, tmp_path / "absent.pem"):
        server = EdgeServer(nothing, ServerSettings(port=0, tls_cert=cert, tls_key=cert), Lifecycle())
        with pytest.raises(ConfigError, match="certificate"):
            await server.run_until_signal(lambda _host, _port: None)


def test_callbacks_for_the_end_of_the_drain_run_once_and_independently(caplog):
    lifecycle = Lifecycle()
    called = []

    def fail():
        raise ValueError("no")

    lifecycle.on_deadline(fail)
    lifecycle.on_deadline(lambda: called.append(1))
    kept_out = lambda: called.append(2)  # noqa: E731 - the same object goes in and out
    lifecycle.on_deadline(kept_out)
    lifecycle.forget(kept_out)
    lifecycle.pass_deadline()
    lifecycle.pass_deadline()
    assert called == [1]
    assert lifecycle.deadline_passed
    assert caplog.records
