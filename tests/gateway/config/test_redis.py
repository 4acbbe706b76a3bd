"""The `redis` section of providers.yaml."""

import pytest

from gateway.config.load import load
from gateway.errors import ConfigError

REST = "providers:\n  p: {dialect: openai, base_url: 'http://127.0.0.1:1/v1', models: {m: {}}}\n"


def loaded(tmp_path, redis, env, more=""):
    path = tmp_path / "providers.yaml"
    path.write_text(f"gateway: {{redis: {redis}{more}}}\n{REST}")
    return load(path, {"MIXGATE_HOME": str(tmp_path), **env}).gateway.redis


def test_its_url_is_a_secret_and_the_rest_has_defaults(tmp_path):
    url = "redis://:pass-word-1@redis.example:6379/0"
    found = loaded(tmp_path, "{url: env:REDIS_URL}", {"REDIS_URL": url})
    assert found is not None
    assert found.url.reveal() == url
    assert "pass-word-1" not in repr(found)
    assert (found.replica, found.prefix, found.lease_extra_s) == (None, "mixgate:", 60)


@pytest.mark.parametrize(
    ("redis", "url", "said"),
    [
        ("{url: env:REDIS_URL}", "", "REDIS_URL is empty"),
        ("{url: env:REDIS_URL}", "http://redis.example/0", "is no URL of a Redis"),
        ("{url: env:REDIS_URL}", "redis:///0", "is no URL of a Redis"),
        ("{url: 'redis://:pass-word-1@host/0'}", "", "url"),
        ("{url: env:REDIS_URL, replica: 'a b'}", "redis://h/0", "cannot be a gateway's name"),
        ("{url: env:REDIS_URL, prefix: '{a}'}", "redis://h/0", "cannot begin a key"),
        ("{url: env:REDIS_URL, lease_extra_s: 1}", "redis://h/0", "lease_extra_s"),
    ],
)
def test_what_cannot_be_used_is_refused_without_its_password(tmp_path, redis, url, said):
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, redis, {"REDIS_URL": url})
    assert said in str(caught.value)
    assert "pass-word-1" not in str(caught.value)
