"""The house rules that no linter knows: sizes, vendors' names, links of the decisions, what no text may name."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("gateway", "providers", "local_backend")
FILE_MAX_LINES = 400
TEST_FILE_MAX_LINES = 550
FUNCTION_MAX_LINES = 60
TEST_FUNCTION_MAX_LINES = 80
"""Tables of cases are long and simple."""

VENDORS = re.compile(
    r"openrouter|mistral|bedrock|vincony|mindstudio|anthropic|groq|cerebras|deepseek|together.?ai|ollama"
    r"|(?<!_)\bvllm|lm.?studio|fireworks|deepinfra|azure|vertex|gemini|cohere|perplexity|\bzai\b",
    re.IGNORECASE,
)
VENDORS_ALLOWED = {
    "gateway/server": "speaks OpenAI's and OpenRouter's dialects to clients, whose shapes differ",
    "gateway/config/dialects.py": "the one list of dialects and what each takes for granted",
    "gateway/config/aws.py": "AWS calls its own variables, hosts and credentials by these names",
    "gateway/cli/aws.py": "tells people which of those variables to set",
    "gateway/imports": "translates what other gateways are configured with and what vendors publish",
    "gateway/cli/refresh.py": "asks the one vendor that publishes its prices in its API",
    "gateway/cli/drill.py": "has the server write answers, and says in whose form",
    "gateway/cli/examples.py": "shows what people type, providers' names included",
    "gateway/cli/import.py": "names the sources that can be imported",
    "gateway/cli/__init__.py": "says in a line what each command does, importing included",
}
"""Where a vendor's name may stand in code, and why. Comments, docstrings and YAML may name anybody."""

NAMED_NOWHERE = {
    "a path of one machine": re.compile(r"(?<![\w.$}{~-])/(?:work|root|home/[a-z]+)/"),
    "a host that packages come from": re.compile(
        r"\b(?:pypi|pythonhosted)\.org|files\.pythonhosted|(?:--|_)(?:extra-)?index-url[ =]+\S*://"
        r"|\b[\w.-]*(?:artifactory|devpi|nexus3?)[\w-]*\.[a-z]{2,}",
        re.IGNORECASE,
    ),
    "an unfinished thing": re.compile(r"(?:#|//|<!--)\s*(?:TODO|FIXME|XXX)\b|\b(?:TODO|FIXME)[:(]"),
}
NAMED_ALLOWED = {
    "tests/test_tidy.py": "this rule",
    "tests/docs/test_pages.py": "the same rule for the pages",
}


def tracked(*suffixes):
    """Files of the repository, as git knows them, that are there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return sorted(path for path in paths if path.is_file() and (not suffixes or path.suffix in suffixes))


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def packaged():
    return [path for path in tracked(".py") if name_of(path).split("/")[0] in PACKAGES]


def parsed(path):
    return ast.parse(path.read_text(), name_of(path))


def test_every_module_says_what_it_is_for():
    silent = [name_of(path) for path in packaged() if path.read_text().strip() and not ast.get_docstring(parsed(path))]
    empty = [name_of(path) for path in packaged() if not path.read_text().strip() and path.name != "__init__.py"]
    assert silent + empty == []


def test_files_are_short():
    long = {}
    for path in tracked(".py"):
        limit = TEST_FILE_MAX_LINES if name_of(path).startswith("tests/") else FILE_MAX_LINES
        lines = len(path.read_text().splitlines())
        if lines > limit:
            long[name_of(path)] = lines
    assert long == {}


def test_functions_are_short():
    long = {}
    for path in tracked(".py"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                testing = name_of(path).startswith("tests/")
                if lines > (TEST_FUNCTION_MAX_LINES if testing else FUNCTION_MAX_LINES):
                    long[f"{name_of(path)}:{node.lineno} {node.name}"] = lines
    assert long == {}


def docstrings(tree):
    """The constants that are text about code: docstrings of modules, classes, functions and attributes."""
    for node in ast.walk(tree):
        for inner in getattr(node, "body", ()) if not isinstance(node, ast.Lambda | ast.IfExp) else ():
            if isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant):
                yield inner.value


def words(tree):
    """Every identifier and every string of code that is not a docstring, with its line."""
    about = {id(node) for node in docstrings(tree)}
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in about:
            yield line, node.value
        for field in ("id", "attr", "name", "arg", "module", "asname"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield line, value


def test_the_gateway_names_no_vendor():
    """Differences between vendors are quirks, dialects and YAML: no code asks who the vendor is."""
    found = []
    for path in packaged():
        name = name_of(path)
        if name.startswith("gateway/") and not any(name.startswith(allowed) for allowed in VENDORS_ALLOWED):
            found += [f"{name}:{line} {word[:60]!r}" for line, word in words(parsed(path)) if VENDORS.search(word)]
    assert found == []


def test_every_exception_to_that_is_still_one():
    for allowed in VENDORS_ALLOWED:
        paths = [path for path in packaged() if name_of(path).startswith(allowed)]
        assert not paths or any(VENDORS.search(word) for path in paths for _, word in words(parsed(path))), allowed


@pytest.mark.parametrize("what", NAMED_NOWHERE)
def test_no_text_names(what):
    found = []
    for path in tracked():
        if name_of(path) in NAMED_ALLOWED:
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # a binary: the demonstration model
        for number, line in enumerate(text.splitlines(), 1):
            if NAMED_NOWHERE[what].search(line):
                found.append(f"{name_of(path)}:{number} {line.strip()[:100]}")
    assert found == []


def test_every_decision_is_linked():
    index = ROOT / "docs" / "adr" / "README.md"
    if not index.exists():
        pytest.skip("no decisions are written down yet")
    decisions = {path.name for path in index.parent.glob("[0-9]*.md")}
    linked = set(re.findall(r"\]\((?:\./)?([0-9][^)#]*\.md)", index.read_text()))
    assert decisions
    assert linked == decisions
