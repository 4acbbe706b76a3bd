"""The `postgres` section of providers.yaml."""

import subprocess
import sys

import pytest

from gateway.config.load import load
from gateway.errors import ConfigError

REST = "providers:\n  p: {dialect: openai, base_url: 'http://127.0.0.1:1/v1', models: {m: {}}}\n"


def loaded(tmp_path, postgres, env, more=""):
    path = tmp_path / "providers.yaml"
    path.write_text(f"gateway: {{postgres: {postgres}{more}}}\n{REST}")
    return load(path, {"MIXGATE_HOME": str(tmp_path), **env}).gateway


def test_its_url_is_a_secret(tmp_path):
    url = "postgresql://me:pass-word-1@db.example:5432/fleet"
    found = loaded(tmp_path, "{url: env:FLEET_URL}", {"FLEET_URL": url}).postgres
    assert found is not None
    assert found.url.reveal() == url
    assert "pass-word-1" not in repr(found)


@pytest.mark.parametrize(
    ("postgres", "url", "said"),
    [
        ("{url: env:FLEET_URL}", "", "FLEET_URL is empty"),
        ("{url: env:FLEET_URL}", "mysql://me:pass-word-1@db.example/fleet", "is no URL of a Postgres"),
        ("{url: env:FLEET_URL}", "postgresql://db.example", "is no URL of a Postgres"),
        ("{url: env:FLEET_URL}", "postgresql://db.example:x/fleet", "is no URL of a Postgres"),
        ("{url: 'postgresql://me:pass-word-1@host/0'}", "", "url"),
        ("{}", "", "url"),
    ],
)
def test_what_cannot_be_used_is_refused_without_its_password(tmp_path, postgres, url, said):
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, postgres, {"FLEET_URL": url})
    assert said in str(caught.value)
    assert "pass-word-1" not in str(caught.value)


def test_a_gateway_of_a_fleet_may_listen_for_others_before_it_has_the_fleet_s_keys(tmp_path):
    env = {"FLEET_URL": "postgresql://db.example/fleet"}
    assert loaded(tmp_path, "{url: env:FLEET_URL}", env, ", host: 0.0.0.0").host == "0.0.0.0"  # noqa: S104 # the point


def test_nothing_of_postgres_is_imported_by_a_gateway_that_has_none():
    said = "import gateway.app, gateway.cli.serve, gateway.cli.spend, gateway.cli.ledger, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert not {"sqlalchemy", "psycopg", "alembic", "redis"} & set(done.stdout.split())
