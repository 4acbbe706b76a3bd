"""What the pages look like and whether everybody can use them: pictures for people, axe for the rest."""

import pytest

from tests.dashboard_browser.kit import PHONE_WIDTH, SIZES, settle

VIEWS = {
    "overview": "?since=7d",
    "endpoints": "endpoints",
    "endpoint": "endpoints?endpoint=north/up",
    "requests": "requests?outcome=failed",
    "request": "requests/{id}",
    "live": "live",
    "keys": "keys",
    "what-if": "what-if",
}
SERIOUS = {"serious", "critical"}


def serious_findings(page, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    # All but the colours is the same in the dark.
    rules = {"runOnly": ["color-contrast"]} if theme == "dark" else {}
    found = axe.Axe().run(page, options={"resultTypes": ["violations"], **rules}).response["violations"]
    return [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found if one["impact"] in SERIOUS]


@pytest.mark.parametrize("name", VIEWS)
def test_axe_finds_nothing_serious_in_light_and_dark_and_a_phone_scrolls_one_way(
    visit, admin, gateway, artefacts, name
):
    page = visit(VIEWS[name].format(id=gateway.failed_over), signed_in=admin)
    settle(page)
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        page.screenshot(path=artefacts / f"{name}-{theme}.png", full_page=True)
        assert serious_findings(page, theme) == []
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    page.set_viewport_size(SIZES["phone"])
    page.reload()
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE_WIDTH
    page.screenshot(path=artefacts / f"{name}-phone.png", full_page=True)


def test_the_sign_in_page_too(visit, artefacts):
    page = visit("", fresh=True)
    page.get_by_label("Token").wait_for()
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        page.screenshot(path=artefacts / f"sign-in-{theme}.png")
        assert serious_findings(page, theme) == []
