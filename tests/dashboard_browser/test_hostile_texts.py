"""Whatever clients, providers and configurations call themselves is text on these pages, and nothing but text."""

import pytest

from tests.dashboard_browser.kit import settle

UNSEEN = {
    "route",
    "price endpoint", "upstream id", "table", "catalogue", "event endpoint", "referer", "session", "user", "provider",
    "key_id", "surface", "exclusion code",
}  # fmt: skip
"""Not shown on these pages, or only to who asks; they are tried in all other ways."""


def texts_of(page):
    return page.evaluate(
        """() => {
          const all = [document.body.innerText];
          for (const one of document.querySelectorAll('[title], [aria-label], option, input')) {
            all.push(one.title, one.getAttribute('aria-label') || '', one.textContent, one.value || '');
          }
          return all.join('\\n');
        }"""
    )


def check(page, place):
    settle(page)
    assert page.evaluate("window.hit") is None, place
    assert page.locator("iframe, main img, main script, svg[onload], [srcdoc]").count() == 0, place
    assert page.locator("a[href^='javascript:']").count() == 0, place
    return texts_of(page)


def test_thirty_attacks_are_shown_as_text(visit, admin, gateway):
    assert len(gateway.attacks) >= 30
    page = visit(f"requests/{gateway.hostile_id}", signed_in=admin)
    seen = check(page, "request")
    base = page.url.split("/requests")[0]
    grouped = [f"/?since=24h&by={by}" for by in ("provider", "key", "tag")]
    for path in ("/requests", "/endpoints?standing=", "/keys", "/?since=24h", *grouped):
        page.goto(base + path)
        seen += check(page, path)
        for fold in page.locator("details.as-table summary").all():
            fold.click()
        seen += check(page, path)
    missing = {
        field for field, text in gateway.attacks.items() if text not in seen and " ".join(text.split()) not in seen
    }
    assert missing <= UNSEEN, "each is there, as text"


@pytest.mark.parametrize(
    "field", ["model", "since", *(pytest.param(one, marks=pytest.mark.full) for one in ("app", "outcome", "before"))]
)
def test_an_attack_in_the_url_is_text_too(visit, admin, field):
    page = visit("requests", signed_in=admin)
    page.expected = ["400"]
    page.goto(page.url + f"?{field}=%22%3E%3Cimg%20src%3Dx%20onerror%3D%22window.hit%3D1%22%3E")
    check(page, field)
