"""A Bedrock provider is on when there is something to sign with, told without asking botocore or the network."""

import subprocess
import sys

import pytest

from gateway.cli.aws import confirm_credentials
from gateway.config.aws import AWS_VARIABLES, bedrock_url
from gateway.config.load import load
from gateway.config.locations import PACKAGED_CONFIG
from gateway.errors import ConfigError

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "planted"}
REGION = {"AWS_REGION": "eu-west-3"}


def entry(tmp_path, env, *lines):
    path = tmp_path / "providers.yaml"
    written = "".join(f"    {line}\n" for line in ("dialect: bedrock_converse", *lines))
    path.write_text(f"providers:\n  aws:\n{written}    models: {{mistral.mixtral-8x7b-instruct-v0:1: {{}}}}\n")
    return load(path, env)


def aws(tmp_path, env, *lines):
    return entry(tmp_path, env, *lines).providers["aws"]


def home(tmp_path, credentials="", config=""):
    folder = tmp_path / "home" / ".aws"
    folder.mkdir(parents=True)
    (folder / "credentials").write_text(credentials)
    (folder / "config").write_text(config)
    return {"HOME": str(tmp_path / "home")}


@pytest.mark.parametrize(
    "env",
    [
        KEYS,
        {"AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token", "AWS_ROLE_ARN": "arn:aws:iam::1:role/x"},
        {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.2/x"},
        {"AWS_EC2_METADATA_DISABLED": "false"},
    ],
)
def test_it_is_on_with_credentials_in_sight(tmp_path, env):
    found = aws(tmp_path, {**env, **REGION})
    assert (found.on, found.aws, found.api_key, found.region) == (True, True, None, "eu-west-3")
    assert found.base_url == "https://bedrock-runtime.eu-west-3.amazonaws.com"


@pytest.mark.parametrize("env", [{}, {"AWS_ACCESS_KEY_ID": "x"}, {**KEYS, "AWS_SECRET_ACCESS_KEY": " "}])
def test_it_is_off_without_and_says_what_to_set(tmp_path, env):
    found = aws(tmp_path, {**env, **REGION})
    assert not found.on
    assert found.variables == AWS_VARIABLES
    assert all(name in f"{found.off_reason}; {found.fix}" for name in AWS_VARIABLES)


def test_a_bedrock_api_key_comes_before_a_signature(tmp_path):
    found = aws(tmp_path, {**KEYS, **REGION, "AWS_BEARER_TOKEN_BEDROCK": "bedrock-key"})
    assert found.on
    assert found.api_key.reveal() == "bedrock-key"
    broken = aws(tmp_path, {**KEYS, **REGION, "AWS_BEARER_TOKEN_BEDROCK": "two words"})
    assert (broken.on, broken.api_key) == (False, None)


def test_a_key_of_its_own_decides_alone(tmp_path):
    lines = ("region: us-east-1", "api_key: env:TEAM_KEY")
    assert not aws(tmp_path, KEYS, *lines).on
    found = aws(tmp_path, {"TEAM_KEY": "k", "AWS_BEARER_TOKEN_BEDROCK": "other"}, *lines)
    assert found.on
    assert found.api_key.reveal() == "k"


def test_a_profile_counts_only_where_the_files_have_it(tmp_path):
    env = {**home(tmp_path, "[work]\naws_access_key_id = AKID\naws_secret_access_key = planted\n"), **KEYS}
    assert aws(tmp_path, env, "region: us-east-1", "profile: work").on
    other = aws(tmp_path, env, "region: us-east-1", "profile: nobody")
    assert not other.on
    assert "nobody" in other.off_reason
    assert "aws configure --profile nobody" in other.fix


@pytest.mark.parametrize(
    "config",
    [
        "[default]\nregion = us-west-2\nsso_session = x\n",
        "[default]\nregion = us-west-2\ncredential_process = /bin/x\n",
        "[default]\nregion = us-west-2\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = base\n",
    ],
)
def test_the_default_profile_gives_credentials_and_region(tmp_path, config):
    found = aws(tmp_path, home(tmp_path, config=config))
    assert (found.on, found.region) == (True, "us-west-2")


def test_the_environments_profile_is_looked_for_in_the_config_file(tmp_path):
    env = home(tmp_path, config="[profile team]\nregion = eu-west-3\nrole_arn = x\n")
    assert aws(tmp_path, {**env, "AWS_PROFILE": "team"}).on
    assert not aws(tmp_path, {**env, **REGION}).on


@pytest.mark.parametrize(
    "text", ["no section", "[default\n", "[default]\n\xff", "[default]\nx = %(y)s\n[default]\n", ""]
)
def test_a_file_that_cannot_be_read_has_no_credentials(tmp_path, text):
    env = home(tmp_path)
    (tmp_path / "home" / ".aws" / "credentials").write_bytes(text.encode("latin-1"))
    (tmp_path / "home" / ".aws" / "config").unlink()
    (tmp_path / "home" / ".aws" / "config").mkdir()
    assert not aws(tmp_path, {**env, **REGION}).on


def test_the_region_is_the_written_one_then_the_urls_then_the_environments(tmp_path):
    env = {**KEYS, **REGION, "AWS_DEFAULT_REGION": "us-east-2"}
    assert aws(tmp_path, env, "region: us-west-2").region == "us-west-2"
    url = "base_url: https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com"
    assert aws(tmp_path, env, url).region == "us-gov-west-1"
    assert aws(tmp_path, env, "base_url: https://vpce-1.example").region == "eu-west-3"
    assert aws(tmp_path, {**KEYS, "AWS_DEFAULT_REGION": "us-east-2"}).region == "us-east-2"
    assert bedrock_url("cn-north-1") == "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"


@pytest.mark.parametrize("region", ["evil.test/x", "us-east-1.evil.test", "US-EAST-1", "x"])
def test_no_region_leads_to_another_host(tmp_path, region):
    with pytest.raises(ConfigError, match="region"):
        aws(tmp_path, KEYS, f"region: {region}")
    found = aws(tmp_path, {**KEYS, "AWS_REGION": region})
    assert not found.on
    assert "evil" not in found.base_url


def test_without_any_region_it_is_off(tmp_path):
    found = aws(tmp_path, KEYS)
    assert (found.on, found.off_reason) == (False, "no AWS region is known")


def test_a_region_of_ones_own_has_the_prices_of_that_region(tmp_path):
    catalogue = entry(tmp_path, {**KEYS, **REGION})
    price = catalogue.endpoints["aws/mistral.mixtral-8x7b-instruct-v0:1"].price
    assert (price.input_in_pusd, price.output_in_pusd) == (590_000, 910_000)


def test_the_shipped_file_knows_the_three_regions_and_all_are_off_without_credentials():
    catalogue = load(PACKAGED_CONFIG, {})
    found = {name: one.region for name, one in catalogue.providers.items() if one.aws}
    assert found == {"bedrock": "us-east-1", "bedrock-us-west-2": "us-west-2", "bedrock-eu-west-3": "eu-west-3"}
    assert not any(catalogue.providers[name].on for name in found)
    on = load(PACKAGED_CONFIG, KEYS)
    assert all(on.providers[name].on for name in found)
    endpoint = on.endpoints["bedrock/mistral.mixtral-8x7b-instruct-v0:1"]
    assert (endpoint.max_output_tokens, endpoint.price.output_in_pusd) == (4096, 700_000)
    assert not any((endpoint.capabilities.system, endpoint.capabilities.tools, endpoint.capabilities.json_schema))


def test_check_asks_botocore_and_turns_off_what_it_cannot_sign_for(tmp_path, monkeypatch):
    for name in (*KEYS, "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    catalogue = entry(tmp_path, {**KEYS, **REGION})
    assert catalogue.providers["aws"].on
    found = confirm_credentials(catalogue).providers["aws"]
    assert not found.on
    assert "botocore finds no AWS credentials" in found.off_reason
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    assert confirm_credentials(catalogue).providers["aws"].on


def test_reading_the_configuration_does_not_import_botocore():
    program = (
        "import os, sys; from gateway.config.load import load; from gateway.config.locations import PACKAGED_CONFIG;"
        f"found = load(PACKAGED_CONFIG, {KEYS!r}); assert found.providers['bedrock'].on;"
        "print([name for name in sys.modules if name.startswith('botocore')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
