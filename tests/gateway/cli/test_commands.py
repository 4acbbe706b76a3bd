"""The commands, run in this process: what they print and how they exit."""
# ruff: noqa: S104  # addresses are only compared

import shlex
import socket
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from gateway.cli import COMMANDS, doctor, main
from gateway.cli import pull as pull_command
from gateway.cli.facts import usd_per_mtok
from gateway.cli.serve import base_url, curl_line
from gateway.config.catalogue import GatewaySettings, Tls
from gateway.config.overrides import PREFIX, SETTING_KEYS
from gateway.config.secrets import Secret
from local_backend.file_errors import DiskFullError
from local_backend.pull import Progress

KEY = "sk-or-v1-0123456789abcdef"
GOOD = """\
providers:
  mine:
    dialect: openai
    base_url: http://127.0.0.1:9/v1
    api_key: env:MINE_KEY
    models:
      big: {context_tokens: 1000, price: {input: 0.5, output: 12}}
      small: {serves: little, context_tokens: 10}
routes:
  big: {aliases: [large], fallback: [little]}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command line in an empty folder, with an environment that holds nothing of ours."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENROUTER_API_KEY", "MIXGATE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MIXGATE_HOME", str(tmp_path / "home"))

    def command(*arguments: str, config: str | None = None, **env: str) -> Result:
        if config is not None:
            (tmp_path / "providers.yaml").write_text(config)
        return CliRunner().invoke(main, arguments, env=env, catch_exceptions=False)

    return command


def test_the_help_names_every_command_and_the_exit_codes(run):
    result = run("--help")
    assert result.exit_code == 0
    assert all(f"  {name}" in result.output for name in COMMANDS)
    assert "MIXGATE_CONFIG" in result.output
    assert "Exit codes" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_explains_itself(run, name: str):
    result = run(name, "--help")
    assert result.exit_code == 0
    assert len(result.output) > 200
    assert import_module(f"gateway.cli.{name.replace('-', '_')}").command.name == name


def test_the_version_is_printed(run):
    assert run("--version").output.startswith("mixgate 0.")


@pytest.mark.parametrize("arguments", [("nope",), ("check", "a", "b"), ("pull",), ("--nope",)])
def test_a_wrong_command_line_exits_2(run, arguments: tuple[str, ...]):
    assert run(*arguments).exit_code == 2


def test_check_says_who_is_on_and_what_to_set(run):
    result = run("check", config=GOOD)
    assert result.exit_code == 0
    assert "MINE_KEY is not set" in result.output
    assert "export MINE_KEY=" in result.output
    result = run("check", config=GOOD, MINE_KEY=KEY)
    assert "2 of 2 models" in result.output
    assert KEY not in result.output


def test_check_prints_plain_aligned_text_when_piped(run):
    result = run("check", config=GOOD, MINE_KEY=KEY)
    assert "\x1b" not in result.output
    assert "│" not in result.output
    (row,) = [line for line in result.stdout.splitlines() if "mine/big" in line]
    assert row.split() == ["big", "mine/big", "on", "1000", "0.50", "12"]


def test_check_warns_of_a_fallback_smaller_than_its_route(run):
    result = run("check", config=GOOD)
    assert 'providers.yaml:10: warning: the fallback "little" takes 10 tokens' in result.stderr


def test_check_exits_2_with_line_and_fix(run):
    result = run("check", config=GOOD.replace("base_url", "bas_url"))
    assert result.exit_code == 2
    assert 'providers.yaml:4: error: unknown key "bas_url"' in result.stderr
    assert 'fix: write "base_url"' in result.stderr


def test_check_takes_a_file_and_says_if_it_is_missing(run, tmp_path: Path):
    (tmp_path / "other.yaml").write_text("providers: {}\n")
    assert run("check", "other.yaml", config="broken: true\n").exit_code == 0
    result = run("check", "missing.yaml")
    assert result.exit_code == 2
    assert "cannot be read" in result.stderr


def test_check_without_any_file_judges_the_shipped_one(run):
    result = run("check")
    assert result.exit_code == 0
    assert "OPENROUTER_API_KEY is not set" in result.output
    assert "not pulled" in result.output


def test_a_pulled_file_turns_its_row_on(run, tmp_path: Path):
    models = tmp_path / "home/models"
    models.mkdir(parents=True)
    (models / "Mixtral-8x7B-Instruct-v0.1.Q4_K_M.gguf").touch()
    assert run("models", "--names").output.split() == ["mixtral-8x7b", "demo"]


def test_local_models_are_off_where_the_engine_is_not_installed(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gateway.cli.facts.check_package", lambda: "llama-cpp-python is not installed, so: do this")
    assert run("models", "--names").output == ""
    assert "llama-cpp-python is not installed" in run("check").output


def test_models_lists_names_prices_and_aliases(run):
    result = run("models", config=GOOD, MINE_KEY=KEY)
    assert result.exit_code == 0
    assert "then little" in result.output
    assert "large" in result.output
    assert run("models", "--names", MINE_KEY=KEY).output.split() == ["big", "little"]
    assert run("models", "--names").output == ""


@pytest.mark.parametrize(
    ("pico_usd", "shown"),
    [(None, "?"), (0, "0"), (2_000_000, "2"), (540_000, "0.54"), (500_000, "0.50"), (1, "0.000001")],
)
def test_prices_are_shown_as_the_file_has_them(pico_usd: int | None, shown: str):
    assert usd_per_mtok(pico_usd) == shown


@pytest.mark.parametrize("count", ["0", "65", "many"])
def test_serve_refuses_a_number_of_workers_that_makes_no_sense(run, count):
    result = run("serve", "--workers", count)
    assert result.exit_code == 2
    assert "--workers" in result.stderr
    assert "fix:" in result.stderr


def test_serve_has_a_flag_for_every_setting(run):
    text = run("serve", "--help").output
    for key in SETTING_KEYS:
        assert "--" + key.replace("_", "-") in text
        assert PREFIX + key.upper() in text


def test_serve_hands_its_flags_on_and_exits_as_the_gateway_did(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    seen: list[object] = []

    def serve(path, env, overrides, announce):
        seen.extend([path, overrides])
        return 3

    monkeypatch.setattr("gateway.cli.serve.serve", serve)
    result = run("serve", "--port", "0", "--drain-s", "5", "--hosts", "a,b", config=GOOD)
    assert result.exit_code == 3
    assert seen == [tmp_path / "providers.yaml", {"port": "0", "drain_s": "5", "hosts": "a,b"}]


@pytest.mark.parametrize(
    ("arguments", "where"),
    [(("--port", "x"), "--port"), (("--host", "0.0.0.0"), "--host"), (("--config", "no.yaml"), "no.yaml")],
)
def test_serve_exits_2_when_it_cannot_start_so(run, arguments: tuple[str, ...], where: str):
    result = run("serve", *arguments)
    assert result.exit_code == 2
    assert where in result.stderr
    assert "fix:" in result.stderr


def test_serve_refuses_a_busy_port(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("serve", "--port", port, config="providers: {}\n")
    assert result.exit_code == 2
    assert f"Port {port}" in result.stderr


@pytest.mark.parametrize(
    ("host", "tls", "url"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:80/v1"),
        ("0.0.0.0", False, "http://127.0.0.1:80/v1"),
        ("::1", False, "http://[::1]:80/v1"),
        ("gate.example", True, "https://gate.example:80/v1"),
    ],
)
def test_the_base_url_can_be_reached_from_here(host: str, tls: bool, url: str):
    assert base_url(host, 80, tls=tls) == url


def test_the_curl_line_names_the_key_and_never_shows_it():
    url = "http://h/v1"
    line = curl_line(url, "it's", GatewaySettings(client_keys=(Secret(KEY, "env:MY_KEY"),)))
    assert '"Authorization: Bearer $MY_KEY"' in line
    assert KEY not in line
    assert '"it\'s"' in shlex.split(line)[-1]
    assert "$(cat '/a b')" in curl_line(url, "m", GatewaySettings(client_keys=(Secret(KEY, "file:/a b"),)))
    assert "Authorization" not in curl_line(url, "m", GatewaySettings())
    assert "curl -k" in curl_line(url, "m", GatewaySettings(tls=Tls(Path("/c"), Path("/k"))))


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch):
    machine = SimpleNamespace(check_package=lambda: None, check_cpu=lambda: None, self_test=lambda: None)
    monkeypatch.setattr(doctor, "preflight", machine)
    monkeypatch.setattr("gateway.cli.doctor.memory.available_bytes", lambda: 8 * 2**30)
    return machine


FREE = "gateway: {port: 0}\n"


def test_doctor_finds_a_sound_installation_sound(run, healthy):
    result = run("doctor", config=FREE + GOOD, MINE_KEY=KEY)
    assert result.exit_code == 0, result.output
    assert "no problem found" in result.output
    assert "can answer: big, little" in result.output


def test_doctor_warns_of_a_missing_key_and_says_what_to_set(run, healthy):
    result = run("doctor", config=FREE + GOOD)
    assert result.exit_code == 0
    assert "MINE_KEY is not set" in result.output
    assert "export MINE_KEY" in result.output
    assert "nothing can answer" in result.output


def test_doctor_finds_a_broken_configuration(run, healthy):
    result = run("doctor", config="providers: 1\n")
    assert result.exit_code == 1
    assert "providers.yaml:1" in result.output


def test_doctor_finds_a_busy_port(run, healthy):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("doctor", config=f"gateway: {{port: {port}}}\n{GOOD}")
    assert result.exit_code == 1
    assert f"Port {port}" in result.output
    assert "--port" in result.output


def test_doctor_finds_a_key_file_that_others_can_read(run, healthy, tmp_path: Path):
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o644)
    result = run("doctor", config=FREE + GOOD.replace("env:MINE_KEY", f"file:{tmp_path}/key"))
    assert result.exit_code == 1
    assert "chmod 600" in result.output
    assert KEY not in result.output


@pytest.mark.parametrize(
    ("question", "complaint", "subject"),
    [
        ("check_package", "llama-cpp-python is not installed, so local models are off: run `make run`", "local extra"),
        ("check_cpu", "this processor lacks avx2", "processor"),
        ("self_test", "the self test failed: it was built for another processor: reinstall it", "local engine"),
    ],
)
def test_doctor_passes_on_what_the_local_backend_says(run, healthy, question: str, complaint: str, subject: str):
    setattr(healthy, question, lambda: complaint)
    result = run("doctor", config=FREE + GOOD, MINE_KEY=KEY)
    assert result.exit_code == 1
    assert complaint.partition(":")[0] in result.output
    assert f"{subject}: " in result.output


def test_doctor_misses_the_compiler_only_where_one_is_needed(run, healthy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    assert "none is needed" in run("doctor", config=FREE + GOOD, MINE_KEY=KEY).output
    healthy.check_package = lambda: "llama-cpp-python is not installed: run `make run`"
    result = run("doctor", config=FREE + GOOD, MINE_KEY=KEY)
    assert "apt-get install g++" in result.output
    assert result.exit_code == 1


def test_doctor_warns_of_little_memory(run, healthy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gateway.cli.doctor.memory.available_bytes", lambda: 100 * 2**20)
    result = run("doctor", config=FREE + GOOD, MINE_KEY=KEY)
    assert "0.1 GiB available" in result.output
    assert "stop other programs" in result.output


def test_doctor_finds_a_pulled_file_that_is_no_model(run, healthy, tmp_path: Path):
    models = tmp_path / "home/models"
    models.mkdir(parents=True)
    (models / "x.gguf").write_bytes(b"not a model")
    result = run("doctor", config=FREE + "providers: {l: {dialect: local, models: {x: {file: x.gguf}}}}\n")
    assert result.exit_code == 1
    assert "model x" in result.output


def test_doctor_finds_a_state_folder_that_is_a_file(run, healthy, tmp_path: Path):
    (tmp_path / "home").touch()
    result = run("doctor", config=FREE + GOOD, MINE_KEY=KEY)
    assert result.exit_code == 1
    assert "MIXGATE_HOME" in result.output


@pytest.mark.parametrize("model", ["x", "a/b", "a/b:", ":Q4", "a/b/c:Q4", "b:Q4"])
def test_pull_says_how_a_model_is_named(run, model: str):
    result = run("pull", model)
    assert result.exit_code == 2
    assert "fix: write it as in" in result.stderr


def test_pull_shows_progress_as_lines_when_piped_and_says_what_next(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async def pull(repository, quantisation, *, models, on_progress, revision):
        assert (repository, quantisation, models, revision) == ("a/b", "Q4_K_M", tmp_path / "home/models", "main")
        on_progress(Progress("asking", "", 0, 0, 0, 0, 0))
        for percent in range(101):
            on_progress(Progress("downloading", "x.gguf", 1, 1, percent * 10**6, 10**8, 2e6))
        return SimpleNamespace(path=models / "x.gguf")

    monkeypatch.setattr(pull_command, "pull", pull)
    result = run("pull", "a/b:Q4_K_M", config=GOOD)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert len([line for line in lines if "downloading x.gguf" in line]) == 11
    assert "50 % of 100 MB, 2.0 MB/s" in result.output
    assert "x: {file: x.gguf, serves: x}" in result.output
    result = run(
        "pull", "a/b:Q4_K_M", config="providers: {l: {dialect: local, models: {y: {file: x.gguf, serves: big}}}}\n"
    )
    assert "it stands behind big" in result.output


def test_pull_fails_with_the_words_of_the_local_backend(run, monkeypatch: pytest.MonkeyPatch):
    async def pull(*_, **__):
        raise DiskFullError("the disk is full: free 3 GB")

    monkeypatch.setattr(pull_command, "pull", pull)
    result = run("pull", "a/b:Q4_K_M")
    assert result.exit_code == 1
    assert "the disk is full: free 3 GB" in result.stderr


def test_pull_can_be_stopped(run, monkeypatch: pytest.MonkeyPatch):
    async def pull(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pull_command, "pull", pull)
    result = run("pull", "a/b:Q4_K_M")
    assert result.exit_code == 1
    assert "run the same command again" in result.stderr


def test_pull_into_a_home_that_cannot_be_written_says_what_to_do_and_shows_no_trace(run, tmp_path: Path):
    (tmp_path / "home").touch()
    result = run("pull", "a/b:Q4_K_M")
    assert result.exit_code == 1
    assert f"error: {tmp_path}/home/models cannot be written: Not a directory. Set MIXGATE_HOME" in result.stderr


@pytest.mark.parametrize("name", ["check", "models", "doctor", "dashboard", "serve"])
def test_a_configuration_is_named_either_way_and_only_once(run, healthy, tmp_path: Path, name: str):
    bad = tmp_path / "elsewhere.yaml"
    bad.write_text("providers: {a: {dialect: opnai}}\n")
    outputs = set()
    for arguments in ([str(bad)], ["--config", str(bad)], [str(bad), "--config", str(bad)]):
        result = run(name, *arguments, config=GOOD)
        assert result.exit_code != 0
        outputs.add(result.output + result.stderr)
    assert len(outputs) == 1
    assert f"{bad}:1" in outputs.pop()
    result = run(name, str(bad), "--config", "providers.yaml")
    assert result.exit_code == 2
    assert "two configuration files are named" in result.stderr
