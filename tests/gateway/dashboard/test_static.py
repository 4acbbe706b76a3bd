"""The pages' own files: text only becomes text, nothing comes from elsewhere, and each says what it is for."""

import re
from pathlib import Path

import pytest

STATIC = Path(__file__).parents[3] / "gateway" / "dashboard" / "static"
FILES = sorted(STATIC.iterdir())
SCRIPTS = [file for file in FILES if file.suffix == ".js"]
MAX_LINES = 400
PARSES_HTML = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|setHTML|srcdoc|text/html"
)
RUNS_TEXT = re.compile(r"\beval\(|new Function|setTimeout\(\s*[\"'`]|javascript:")


def named(file):
    return file.name


@pytest.mark.parametrize("file", SCRIPTS, ids=named)
def test_scripts_never_parse_html_nor_run_text(file):
    text = file.read_text()
    assert PARSES_HTML.findall(text) == []
    assert RUNS_TEXT.findall(text) == []
    assert 'setAttribute("style"' not in text


@pytest.mark.parametrize("file", SCRIPTS, ids=named)
def test_scripts_import_only_files_beside_them_and_only_what_those_export(file):
    text = file.read_text()
    for names, other in re.findall(r"import \{([^}]*)\} from \"([^\"]+)\"", text):
        assert other.startswith("./")
        there = (STATIC / other[2:]).read_text()
        for name in (one.strip() for one in names.split(",")):
            assert re.search(rf"export (async )?(function|class|const) {name}\b", there), f"{name} of {other}"
            assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} is imported and not used"
    for other in re.findall(r"import\(\"([^\"]+)\"\)", text):
        assert (STATIC / other.removeprefix("./")).is_file()


@pytest.mark.parametrize("file", [file for file in FILES if file.suffix in {".js", ".css"}], ids=named)
def test_each_file_says_what_it_is_for_and_can_be_read_at_a_sitting(file):
    text = file.read_text()
    assert text.startswith(("// ", "/* "))
    assert len(text.splitlines()) <= MAX_LINES


@pytest.mark.parametrize("file", FILES, ids=named)
def test_nothing_comes_from_elsewhere(file):
    found = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"']*", file.read_text())
    assert [one for one in found if not one.endswith("www.w3.org/2000/svg")] == []


def test_the_page_has_no_inline_script_or_style_and_names_files_that_exist():
    text = (STATIC / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", text) == []
    for name in re.findall(r"/dashboard/static/([\w.-]+)", text):
        assert (STATIC / name).is_file(), name
    needed = {
        one for file in SCRIPTS for one in re.findall(r"^import .*\"\./([\w.-]+)\"", file.read_text(), re.MULTILINE)
    }
    assert {"api.js", "dom.js"} <= needed
