"""`mixgate refresh` and `mixgate import`, run in this process against a server of our own and files."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.config.load import load
from gateway.config.locations import PACKAGED_CONFIG
from tests.fakes.openrouter_lists import endpoints, listed, model_lists, page

MIXTRAL = "mistralai/mixtral-8x22b-instruct"
LISTS = f"/api/v1/models/{MIXTRAL}/endpoints"
CANARY = "correct-horse-battery"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("OPENROUTER_API_KEY", "MIXGATE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MIXGATE_HOME", str(tmp_path / "home"))

    def command(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, catch_exceptions=False)

    return command


@pytest.fixture
def lists():
    with model_lists() as served:
        served.answers["/api/v1/models"] = [page(listed(MIXTRAL), listed("other/model", context_length=1000))]
        served.answers[LISTS] = [endpoints((65536, "0.000002"), (32768, "0.0000009"))]
        yield served


def write(folder: Path, url: str, row: str = "{context_tokens: 32768}") -> Path:
    path = folder / "providers.yaml"
    path.write_text(
        f"providers:\n  router:\n    dialect: openrouter\n    base_url: {url}\n    models:\n"
        f"      {MIXTRAL}: {row}\n      gone/model: {{}}\n"
    )
    return path


def test_refreshed_facts_fill_in_what_the_file_leaves_out(run, lists, tmp_path: Path):
    path = write(tmp_path, lists.url)
    before = path.read_bytes()
    result = run("refresh")
    assert result.exit_code == 0, result.output
    assert path.read_bytes() == before
    catalogue = load(path, {"MIXGATE_HOME": str(tmp_path / "home")})
    endpoint = catalogue.endpoints[f"router/{MIXTRAL}"]
    assert endpoint.context_tokens == 32768  # the file's own wins
    assert endpoint.price.input_in_pusd == 2_000_000
    assert endpoint.capabilities.tools
    assert endpoint.details["source"] == f"{lists.url}/models"
    assert "price" in endpoint.details["from_catalogue"]
    assert catalogue.endpoints["router/gone/model"].state == "unverified"
    assert not catalogue.warnings
    assert tmp_path / "home" / "catalogue.json" in catalogue.watched


def test_what_differs_is_shown_with_rows_to_paste_that_are_accepted(run, lists, tmp_path: Path):
    path = write(tmp_path, lists.url, "{serves: big, context_tokens: 32768, price: {input: 0.9, output: 6}}")
    output = run("refresh").output
    assert "2 endpoints, 32768 to 65536 tokens, input 0.90 to 2" in output
    assert f"router/{MIXTRAL}" in output
    rows = output.partition("keep their `claims`:\n")[2].partition("\n\n")[0]
    assert "price: {input: 2, output: 6, cache_read: 0.20}" in rows
    head = path.read_text().partition("    models:\n")[0]
    path.write_text(f"{head}    models:\n{rows}\n")
    pasted = load(path, {}).endpoints[f"router/{MIXTRAL}"]
    assert (pasted.model, pasted.context_tokens, pasted.price.input_in_pusd) == ("big", 65536, 2_000_000)
    assert "to paste" not in run("refresh").output


def test_each_figure_is_kept_with_its_source_and_date(run, lists, tmp_path: Path):
    write(tmp_path, lists.url)
    run("refresh")
    kept = json.loads((tmp_path / "home" / "catalogue.json").read_text())
    figure = kept["providers"][0]["models"]["other/model"]["context_tokens"]
    assert figure["value"] == 1000
    assert figure["source"] == f"{lists.url}/models"
    assert len(figure["as_of"]) == len("2026-11-22")


def test_a_dry_run_writes_nothing(run, lists, tmp_path: Path):
    write(tmp_path, lists.url)
    assert "nothing was written" in run("refresh", "--dry-run").output
    assert not (tmp_path / "home").exists()


def test_asking_again_replaces_that_provider_and_keeps_others(run, lists, tmp_path: Path):
    write(tmp_path, lists.url)
    run("refresh")
    lists.answers["/api/v1/models"] = [page(listed(MIXTRAL, context_length=40000))]
    kept = tmp_path / "home" / "catalogue.json"
    content = json.loads(kept.read_text())
    content["providers"].append({"dialect": "openrouter", "base_url": "http://else", "models": {}})
    kept.write_text(json.dumps(content))
    assert run("refresh", "--provider", "router").exit_code == 0
    after = json.loads(kept.read_text())["providers"]
    assert [one["base_url"] for one in after] == ["http://else", lists.url]
    assert "other/model" not in after[1]["models"]
    assert [path.name for path in kept.parent.iterdir()] == ["catalogue.json"]


def test_a_failure_leaves_what_was_known(run, lists, tmp_path: Path):
    write(tmp_path, lists.url)
    run("refresh")
    kept = (tmp_path / "home" / "catalogue.json").read_bytes()
    lists.answers["/api/v1/models"] = [(403, {}, b"")]
    result = run("refresh")
    assert result.exit_code == 1
    assert "provider key" in result.output
    assert (tmp_path / "home" / "catalogue.json").read_bytes() == kept


@pytest.mark.parametrize("arguments", [("--provider", "nobody"), ()])
def test_only_providers_that_publish_such_lists_are_asked(run, tmp_path: Path, arguments: tuple[str, ...]):
    (tmp_path / "providers.yaml").write_text("providers: {a: {dialect: mistral}}\n")
    result = run("refresh", *arguments)
    assert result.exit_code == 2
    assert "dialect: openrouter" in result.output


@pytest.mark.parametrize("content", ["", "[]", '{"version": 9}', '{"providers": [{"dialect": 1}]}', "\x00" * 50])
def test_a_broken_catalogue_is_ignored_with_a_warning(tmp_path: Path, content: str):
    (tmp_path / "catalogue.json").write_text(content)
    catalogue = load(write(tmp_path, "http://h/v1"), {"MIXGATE_HOME": str(tmp_path)})
    assert "mixgate refresh" in catalogue.warnings[0].fix


@pytest.mark.parametrize("value", [-1, "x", {"input": "NaN"}, {"input": "nope"}, [1]])
def test_figures_that_make_no_sense_are_ignored_with_a_warning(tmp_path: Path, value: object):
    figure = {"value": value, "source": "s", "as_of": "2026-11-22"}
    place = {"dialect": "openrouter", "base_url": "http://h/v1", "models": {MIXTRAL: {"price": figure}}}
    (tmp_path / "catalogue.json").write_text(json.dumps({"providers": [place]}))
    catalogue = load(write(tmp_path, "http://h/v1"), {"MIXGATE_HOME": str(tmp_path)})
    assert "makes no sense" in catalogue.warnings[0].message
    assert catalogue.endpoints[f"router/{MIXTRAL}"].price is None


def test_the_shipped_file_takes_what_was_learned_since(tmp_path: Path):
    shipped = load(PACKAGED_CONFIG, {"MIXGATE_HOME": str(tmp_path)})
    figure = {"value": {"input": "3"}, "source": "the list", "as_of": "2026-12-01"}
    place = {
        "dialect": "openrouter",
        "base_url": shipped.providers["openrouter"].base_url,
        "models": {MIXTRAL: {"price": figure}},
    }
    (tmp_path / "catalogue.json").write_text(json.dumps({"providers": [place]}))
    endpoint = load(PACKAGED_CONFIG, {"MIXGATE_HOME": str(tmp_path)}).endpoints[f"openrouter/{MIXTRAL}"]
    assert (endpoint.price.input_in_pusd, endpoint.price.output_in_pusd) == (3_000_000, None)
    assert endpoint.context_tokens == 65536
    assert endpoint.details["as_of"] == "2026-12-01"


# ---- import


SOURCE = {"strategy": {"mode": "fallback"}, "targets": [{"provider": "openai", "api_key": CANARY}]}
SOURCE["targets"][0]["override_params"] = {"model": "gpt-4o"}


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "source.json"
    path.write_text(json.dumps(SOURCE))
    return str(path)


def test_what_import_prints_is_what_check_accepts(run, source: str, tmp_path: Path):
    result = run("import", source, "--name", "chat")
    assert result.exit_code == 0
    assert CANARY not in result.output
    (tmp_path / "made.yaml").write_text(result.output)
    assert run("check", "made.yaml").exit_code == 0


def test_a_file_that_exists_is_never_overwritten(run, source: str, tmp_path: Path):
    assert run("import", source, "--out", "made.yaml").exit_code == 0
    made = (tmp_path / "made.yaml").read_text()
    assert "gpt-4o" in made
    (tmp_path / "made.yaml").write_text("mine")
    result = run("import", source, "--out", "made.yaml")
    assert result.exit_code == 2
    assert "there already" in result.output
    assert (tmp_path / "made.yaml").read_text() == "mine"


@pytest.mark.parametrize("text", ["", "{}", "a: b", json.dumps({"targets": [{"virtual_key": CANARY}]})])
def test_a_source_that_cannot_be_used_exits_2_with_a_remedy(run, tmp_path: Path, text: str):
    (tmp_path / "s").write_text(text)
    result = run("import", "s")
    assert result.exit_code == 2
    assert "fix:" in result.output
    assert CANARY not in result.output


def test_a_source_that_is_not_there_exits_2(run):
    assert run("import", "nowhere.json").exit_code == 2


def test_a_request_for_openrouter_finds_its_siblings_in_the_shipped_catalogue(run, tmp_path: Path):
    content = {"model": "mistralai/mixtral-8x7b-instruct", "provider": {"order": ["amazon-bedrock"]}}
    (tmp_path / "request.json").write_text(json.dumps(content))
    result = run("import", "request.json", "--name", "mixtral")
    assert result.exit_code == 0
    assert "mistral.mixtral-8x7b-instruct-v0:1" in result.output
