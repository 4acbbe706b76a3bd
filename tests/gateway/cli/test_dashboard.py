"""`mixgate dashboard` says where it is, and gives the user of MIXGATE_HOME a token that opens it from this machine."""

from click.testing import CliRunner

from gateway.cli import main
from tests.fakes.gateway import openai_config, running_gateway


def run(*arguments):
    result = CliRunner().invoke(main, ["dashboard", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def test_it_says_where_the_dashboard_is(tmp_path):
    path = tmp_path / "providers.yaml"
    path.write_text("gateway: {host: localhost, port: 8123}\n" + openai_config("http://127.0.0.1:9"))
    assert run("--config", str(path)) == "http://localhost:8123/dashboard/"


async def test_its_token_signs_in_from_this_machine(tmp_path, monkeypatch):
    config = "gateway: {client_keys: [env:CLIENT]}\n" + openai_config("http://127.0.0.1:9")
    async with running_gateway(config, tmp_path, {"CLIENT": "a-client-key"}) as on:
        monkeypatch.setenv("MIXGATE_HOME", str(on.gateway._home))
        own = {"origin": on.url}
        assert (await on.client.get("/dashboard/api/prices")).status_code == 401
        signed_in = await on.client.post("/dashboard/api/sign-in", json={"token": run("--token")}, headers=own)
        assert signed_in.status_code == 200
        assert (await on.client.get("/dashboard/api/prices")).status_code == 200
        elsewhere = own | {"x-forwarded-for": "203.0.113.9"}
        assert (await on.client.get("/dashboard/api/prices", headers=elsewhere)).status_code == 403
