"""What is installed elsewhere: a wheel has every file that the repository's packages have."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("gateway", "providers", "local_backend")


def tracked():
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *PACKAGES]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return {ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()}


def test_files_that_are_no_code_are_named_as_data():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    named = {path for package, globs in patterns.items() for one in globs for path in (ROOT / package).glob(one)}
    assert {path for path in tracked() if path.suffix != ".py"} <= named


@pytest.mark.full
def test_a_wheel_has_them_all(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    copy = tmp_path / "source"
    copy.mkdir()
    kept = [*PACKAGES, "pyproject.toml", "README.md", "LICENSE", "providers.yaml"]
    subprocess.run(["cp", "-r", *(str(ROOT / name) for name in kept), str(copy)], check=True)
    subprocess.run([*build, "-w", str(tmp_path), str(copy)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    listed = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(wheel)], capture_output=True, text=True, check=True
    )
    held = {line.split()[0] for line in listed.stdout.splitlines()[1:]}
    assert {path.relative_to(ROOT).as_posix() for path in tracked()} <= held
