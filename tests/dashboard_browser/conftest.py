"""One gateway and one browser for all of these tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.config.load import load
from tests.dashboard_browser.kit import (
    CHROMIUM,
    CONFIG,
    NOWHERE_ELSE,
    START_S,
    TOKEN,
    VIEWER,
    Visits,
    fill,
    issue_key,
    sign_in,
    wait_for_url,
)


@pytest.fixture(scope="session")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dashboard")
    config = folder / "providers.yaml"
    config.write_text(CONFIG)
    env = {"T_ADMIN": TOKEN, "T_VIEWER": VIEWER}
    home = folder / "home"
    home.mkdir(mode=0o700)
    told = fill(home, load(config, env))
    output = folder / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("mixgate"), "serve", "--config", config, "--port", "0"],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "MIXGATE_HOME": str(home), **env},
        )
    try:
        told.url = wait_for_url(process, output)
        told.home = home
        told.attacks["key label"] = "<img src=x onerror=window.hit=900>900"
        for name in ("checkout", told.attacks["key label"]):
            issue_key(told.url, name)
        yield told
    finally:
        process.kill()  # what it holds is thrown away
        process.wait(START_S)


@pytest.fixture(scope="module")
def browser():
    """Closed with its module: while it is open, its event loop runs, and no other test could have one."""
    if not CHROMIUM.exists():
        pytest.skip("there is no /usr/bin/chromium here (Debian's package chromium), so no page is tried in a browser")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", NOWHERE_ELSE])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def visits(browser, gateway):
    made = Visits(browser, gateway.url)
    yield made
    made.close()


@pytest.fixture
def visit(visits):
    """Open a page; at the end, nothing may have complained or gone elsewhere, and the pages are closed."""
    visits.complaints.clear()
    opened = []

    def open_page(path, **how):
        opened.append(visits.open(path, **how))
        return opened[-1]

    yield open_page
    for page in opened:
        page.close()
    assert visits.complaints == []


@pytest.fixture(scope="module")
def admin(visits, tmp_path_factory):
    """The cookie of an admin, for contexts to start with."""
    path = tmp_path_factory.mktemp("state") / "admin.json"
    page = visits.open("", fresh=True)
    sign_in(page, TOKEN)
    page.context.storage_state(path=path)
    page.close()
    return path


@pytest.fixture(scope="session")
def artefacts():
    """Where pictures go that people look at."""
    root = Path(__file__).parents[2]
    folder = Path(os.environ.get("MIXGATE_ARTEFACTS") or root / "build" / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
