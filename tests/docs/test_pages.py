"""The documents: whole, current, and about what is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli import COMMANDS
from tests.docs.pages import GENERATED, PAGES, ROOT, anchors, links, prose

ADRS = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
PROSE_MAX_CHARS = 120
ADR_MAX_LINES = 80
WORDLESS = re.compile(r"/work/|/root/|/home/[a-z]|pypi\.|files\.pythonhosted", re.IGNORECASE)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_the_generated_pages_say_what_the_code_says():
    check = [sys.executable, "build_aux/generate_docs.py", "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_leads_somewhere(page):
    lost = []
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            lost.append(path)
        elif anchor and anchor not in anchors(target):
            lost.append(path + anchor)
    assert lost == []


def test_every_page_of_the_documents_is_in_the_index():
    index = ROOT / "docs/README.md"
    linked = {(index.parent / path).resolve() for path, _ in links(index)}
    assert [named(page) for page in (ROOT / "docs").rglob("*.md") if page not in {*linked, index, *ADRS}] == []


def test_every_decision_is_listed_once_and_has_the_four_parts():
    listed = [path for path, _ in links(ROOT / "docs/adr/README.md")]
    assert listed == [page.name for page in ADRS]
    assert [page.name[:4] for page in ADRS] == [f"{number:04}" for number in range(1, len(ADRS) + 1)]
    for page in ADRS:
        text = page.read_text()
        assert text.startswith(f"# {page.name[:4]} "), page.name
        for part in ("**Status**", "**Context.**", "**Decision.**", "**Consequences.**"):
            assert text.count(part) == 1, f"{page.name}: {part}"
        assert text.count("\n") <= ADR_MAX_LINES, f"{page.name} is longer than a page"


def test_decisions_that_the_code_names_exist():
    sources = [
        path for top in ("gateway", "providers", "local_backend", "build_aux") for path in (ROOT / top).rglob("*")
    ]
    texts = [path.read_text() for path in sources if path.suffix in (".py", "") and path.is_file()]
    meant = {name for text in texts for name in re.findall(r"docs/adr/[\w-]+\.md", text)}
    assert [name for name in sorted(meant) if not (ROOT / name).is_file()] == []


def test_every_direct_dependency_has_its_reason():
    reasons = (ROOT / "docs/adr/0001-dependencies.md").read_text().lower()
    wanted = set()
    for lock in (ROOT / "requirements").glob("*.in"):
        for line in lock.read_text().splitlines():
            if match := re.match(r"[A-Za-z0-9][\w.-]*", line.partition("#")[0].strip()):
                wanted.add(match[0].lower())
    assert wanted
    assert [name for name in sorted(wanted) if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", reasons)] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_lines_fit_a_screen_and_name_no_machine(page):
    lines = prose(page).splitlines() if page not in GENERATED else []
    long = [line for line in lines if len(line) > PROSE_MAX_CHARS and not line.startswith("|")]
    assert long == []
    assert WORDLESS.findall(page.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_and_make_targets_that_are_named_exist(page):
    text = page.read_text()
    commands = set(re.findall(r"(?:`|bin/|^)mixgate ([a-z]+(?:-[a-z]+)*)", text, re.MULTILINE))
    assert commands <= set(COMMANDS), commands
    targets = set(re.findall(r"^([a-z][\w-]*)(?=[:\s].*?:|:)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named_targets = set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", text, re.MULTILINE))
    assert named_targets <= targets, named_targets - targets


def test_the_readme_comes_to_the_point_within_a_screen():
    before_the_request = (ROOT / "README.md").read_text().partition("curl ")[0]
    assert before_the_request.count("\n") <= 35
