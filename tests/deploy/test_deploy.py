"""What deploy/ holds: judged by published schemas and linters, and held against the product that it deploys."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import promql_parser
import pytest
import yaml

from gateway.cli import main
from gateway.config.load import load
from gateway.config.overrides import OTHER_VARIABLES, PREFIX, SETTING_KEYS
from gateway.metrics.families import FAMILIES

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
YAML = sorted(path for path in DEPLOY.rglob("*") if path.suffix in {".yaml", ".yml"})
MANIFESTS = sorted(set((DEPLOY / "kubernetes").glob("*.yaml")) - {DEPLOY / "kubernetes" / "kustomization.yaml"})
SYSTEMD = shutil.which("systemd-analyze")
SECRETS = {
    "GATEWAY_CLIENT_KEY": "client-0123456789",
    "GATEWAY_ADMIN_TOKEN": "admin-0123456789",
    "GATEWAY_METRICS_TOKEN": "metrics-0123456789",
    "GATEWAY_POSTGRES_URL": "postgresql://mixgate:x@postgres:5432/mixgate",
    "GATEWAY_REDIS_URL": "redis://redis:6379/0",
    "OPENROUTER_API_KEY": "sk-or-0123456789abcdef",
}
FROM_ELSEWHERE = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}


def documents(path):
    return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd=ROOT)
    return done.returncode, done.stdout + done.stderr


def kind(name):
    return next(one for path in MANIFESTS for one in documents(path) if one["kind"] == name)


# ---- judged by others


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_it_is_yaml_without_a_repeated_key(path):
    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
            assert len(keys) == len(set(keys)), keys
            return super().construct_mapping(node, deep)

    assert [*yaml.load_all(path.read_text(), Strict)]


def test_the_manifests_are_what_kubernetes_publishes_as_its_schema():
    code, said = run(BIN / "kubernetes-validate", "--strict", *MANIFESTS)
    assert code == 0, said
    assert said.count("passed for resource") == sum(len(documents(path)) for path in MANIFESTS)


def test_the_compose_file_is_what_the_compose_specification_publishes_as_its_schema():
    code, said = run(
        BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose/compose.yaml"
    )
    assert code == 0, said


def test_the_linter_finds_nothing_in_the_dockerfile():
    code, said = run(BIN / "hadolint", DEPLOY / "Dockerfile")
    assert (code, said) == (0, "")


@pytest.mark.skipif(SYSTEMD is None, reason="systemd is not installed")
def test_systemd_takes_the_unit_and_finds_it_hardened(tmp_path):
    unit = tmp_path / "mixgate.service"
    text = (DEPLOY / "systemd/mixgate.service").read_text()
    unit.write_text(text.replace("/opt/mixgate/bin/mixgate", str(BIN / "mixgate")))
    assert run(SYSTEMD, "verify", unit) == (0, "")
    code, said = run(SYSTEMD, "security", "--offline=true", "--threshold=20", unit)
    assert code == 0, said


# ---- held against the product


def options():
    """Every flag of every command."""
    found, groups = set(), [main]
    while groups:
        group = groups.pop()
        for param in group.params:
            found |= {*param.opts, *param.secondary_opts}
        if isinstance(group, click.Group):
            context = click.Context(group)
            groups += [group.get_command(context, name) for name in group.list_commands(context)]
    return found


def test_every_command_and_variable_of_ours_exists():
    known = {PREFIX + key.upper() for key in SETTING_KEYS} | set(OTHER_VARIABLES) | set(SECRETS)
    for path in (one for one in DEPLOY.rglob("*") if one.is_file()):
        assert set(re.findall(r"\bMIXGATE_[A-Z_]+\b", path.read_text())) <= known, path
    commands = main.list_commands(click.Context(main))
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert json.loads(re.search(r"^CMD (.*)$", dockerfile, re.MULTILINE)[1])[0] in commands
    assert json.loads(re.search(r"^ENTRYPOINT (.*)$", dockerfile, re.MULTILINE)[1]) == ["mixgate"]
    (container,) = kind("StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert container["args"][0] in commands
    start = re.search(r"^ExecStart=(.*)$", (DEPLOY / "systemd/mixgate.service").read_text(), re.MULTILINE)[1].split()
    assert start[1] in commands
    for words in (container["args"], start[1:]):
        assert {word for word in words if word.startswith("-")} <= options()


@pytest.mark.parametrize("where", ["providers.yaml", "kubernetes/configuration.yaml"])
def test_the_configuration_loads_without_a_remark(tmp_path, where):
    path = tmp_path / "providers.yaml"
    text = (DEPLOY / where).read_text()
    path.write_text(text if where == "providers.yaml" else yaml.safe_load(text)["data"]["providers.yaml"])
    catalogue = load(path, SECRETS | {"MIXGATE_HOST": "::", "MIXGATE_HOME": str(tmp_path)})
    assert catalogue.warnings == ()
    assert catalogue.gateway.metrics_token is not None
    assert catalogue.providers["openrouter"].on


def test_both_configurations_are_the_same():
    manifest = yaml.safe_load((DEPLOY / "kubernetes/configuration.yaml").read_text())
    assert manifest["data"]["providers.yaml"] == (DEPLOY / "providers.yaml").read_text()


def test_every_secret_is_given_where_it_is_wanted_and_none_is_written_out():
    wanted = set(re.findall(r"env:([A-Z_]+)", (DEPLOY / "providers.yaml").read_text()))
    compose = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())
    assert (
        wanted
        == set(compose["services"]["gateway"]["environment"])
        == set(kind("Secret")["stringData"])
        == set(SECRETS)
    )
    assert set(kind("Secret")["stringData"].values()) == {""}
    asked = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose/compose.yaml").read_text()))
    example = (DEPLOY / "compose/environment.example").read_text()
    assert {line.partition("=")[0] for line in example.splitlines() if "=" in line} == asked


def test_what_runs_has_few_rights():
    spec = kind("StatefulSet")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["terminationGracePeriodSeconds"] > 5 + 120 + 5
    for name, service in yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())["services"].items():
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not service.get("privileged")
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")
    users = re.findall(r"^USER (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert users == [f"{spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}"]


def test_what_is_installed_is_pinned_by_hash():
    dockerfile = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"pip (?:install|wheel) ([^&\n]*)", dockerfile)
    assert len(installs) >= 4
    for one in installs:
        assert "--require-hashes" in one or "--no-index" in one, one
    for name in re.findall(r"requirements/[a-z.]+", dockerfile):
        assert (ROOT / name).is_file()
    for copied in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE):
        for name in copied.split():
            assert (ROOT / name).exists(), name
            allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
            assert f"!{name.strip('/')}" in allowed, name


# ---- figures

SUFFIXED = {
    family.full_name + ending
    for family in FAMILIES
    for ending in (("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",))
}
LABELS = {family.full_name: {*family.labels, "instance", "job", "le"} for family in FAMILIES}


def selectors(text):
    """Names and labels that an expression asks for."""
    promql_parser.parse(text)
    found = re.findall(r"\b([a-z_]+)(?:\{([^}]*)\})?", re.sub(r'"[^"]*"', lambda m: m[0].replace("{", "("), text))
    return [
        (name, set(re.findall(r"(\w+)\s*[=!]", labels))) for name, labels in found if name in KNOWN or "mixgate" in name
    ]


KNOWN = SUFFIXED | FROM_ELSEWHERE


def rules():
    return [
        one
        for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
        for one in group["rules"]
    ]


def panels():
    return [
        panel for panel in json.loads((DEPLOY / "grafana/mixgate.json").read_text())["panels"] if panel["type"] != "row"
    ]


def expressions():
    found = [(rule["alert"], rule["expr"]) for rule in rules()]
    for panel in panels():
        for target in panel["targets"]:
            filled = target["expr"].replace("$__rate_interval", "5m").replace("$__range", "6h")
            found.append((panel["title"], filled.replace("$instance", ".*")))
    return found


@pytest.mark.parametrize(("name", "text"), expressions(), ids=lambda value: value[:30])
def test_every_expression_parses_and_asks_for_what_exists(name, text):
    asked = selectors(text)
    assert asked, name
    for metric, labels in asked:
        assert metric in KNOWN, f"{name}: {metric}"
        family = re.sub(r"_(bucket|sum|count)$", "", metric) if metric not in LABELS else metric
        assert labels <= LABELS.get(family, {"instance", "job"}), f"{name}: {metric} {labels}"


def test_an_expression_with_a_mistake_would_be_found():
    with pytest.raises(ValueError, match=r"\w"):
        promql_parser.parse("sum(rate(mixgate_requests_total[5m])")


def test_rules_have_names_severities_and_words():
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
            had = {one for metric, _ in selectors(rule["expr"]) for one in LABELS.get(metric, {"instance"})}
            assert label in had or label in rule["expr"], (rule["alert"], label)


def test_the_dashboard_is_whole():
    dashboard = json.loads((DEPLOY / "grafana/mixgate.json").read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    names = {one["name"] for one in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+)\b", json.dumps(dashboard["panels"])))
    assert used == names
    mounted = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())["services"]["grafana"]["volumes"]
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/mixgate.yaml").read_text())["providers"][0]
    assert any(provider["options"]["path"] in one for one in mounted)


def test_every_family_that_means_trouble_is_watched():
    text = (DEPLOY / "prometheus/alerts.yml").read_text() + (DEPLOY / "grafana/mixgate.json").read_text()
    told = {family.full_name for family in FAMILIES if family.full_name in text}
    quiet = {family.full_name for family in FAMILIES} - told
    assert quiet <= {
        "mixgate_attempt_duration_seconds",
        "mixgate_build_info",
        "mixgate_endpoint_in_flight",
        "mixgate_leases_expired_total",
        "mixgate_fleet_rows_sent_total",
        "mixgate_fleet_rows_refused_total",
        "mixgate_overdrawn_usd_total",
        "mixgate_ledger_unjournaled_attempts_total",
        "mixgate_ledger_repeated_settlements_total",
    }
