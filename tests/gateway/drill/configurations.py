"""Configurations of two providers, of any two dialects."""

from pathlib import Path

from gateway.cli.drill import reply
from gateway.config.load import load
from gateway.drill.run import Setting, drill
from gateway.drill.scenarios import find_scenarios

PLACES = {
    "openai": "base_url: http://127.0.0.1:1/v1",
    "bedrock_converse": "region: us-east-1",
    "bedrock_invoke": "region: us-east-1",
}


def provider(number: int, dialect: str, *, prefill: bool = True, more: str = "") -> str:
    file = "file: x.gguf" if dialect == "local" else ""
    return f"""\
  p{number}:
    dialect: {dialect}
    {PLACES.get(dialect, "")}
    models:
      up-{number}:
        {file}
        serves: m
        context_tokens: {8000 * number}
        price: {{input: {number}, output: {number}}}
        capabilities: {{system: true, prefill: {str(prefill).lower()}{more}}}
"""


def configuration(*providers: str, policy: str = "ordered") -> str:
    return f"providers:\n{''.join(providers)}routes:\n  m:\n    policy: {policy}\n"


def play(folder: Path, text: str, *ids: str) -> dict:
    """Drill the route `m` of a configuration; gives the outcomes by scenario."""
    path = folder / "providers.yaml"
    path.write_text(text)
    catalogue = load(path, {})
    outcomes = drill(catalogue.routes["m"], find_scenarios(ids), Setting(catalogue, {}, reply))
    return {outcome.scenario.id: outcome for outcome in outcomes}
