"""The pages in a real browser: silent, closed to the network, usable by mouse, keyboard, phone and printer."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up_store import MadeUp, fill_store

from d3m_ray.analysis.report import index_page, report_page
from d3m_ray.analysis.results import read_results
from d3m_ray.store import Store

playwright = pytest.importorskip("playwright.sync_api", reason="playwright, of the extra `dev`, is not installed")

ODD = MadeUp(
    name="odd-00000001",
    groups=("</script><script>throw 1</script>", "a\u202eb\x00c", "$x_1$ & <b>bold</b>", "long name " * 20),
    label_names=('"kind"', "rude'>"),
    numbers=(20, 40),
    num_train=80,
    num_val=80,
    num_test=160,
)
HALF_DONE = MadeUp(name="half-done-00000002", seeds=(0, 1), numbers=(20,), num_train=80, num_val=80, num_test=160)
WIDTHS = (390, 1440)
MIN_CONTRAST = 4.5  # WCAG 2.2, level AA, of text in body size


def odd_texts(store: Store, made: MadeUp) -> None:
    """Gives the train examples texts that no page is made for."""
    key = f"data-{made.name}"
    rows = store.read("examples", key)
    texts = [
        "</script><script>document.title = 'broken'</script><img src=x onerror=alert(1)>",
        "from \u202eright to left\u202c and \u2066isolated",
        "controls \x00\x01\x08\x1b[31m\x7f\x85 and \ufffe\ufdd0",
        "a" * 10_000,
        "line\nfeeds\n\nand\ttabs",
        "=HYPERLINK(1) &amp; &lt;b&gt;",
        "",
    ]
    is_train = rows["split"] == "train"
    rows.loc[is_train, "text"] = [texts[place % len(texts)] for place in range(int(is_train.sum()))]
    store.write("examples", key, rows, {})


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `odd.html`, `half-done.html`, `empty.html` and `index.html`."""
    folder = tmp_path_factory.mktemp("pages")
    store = Store(folder / "store")
    for made in (ODD, HALF_DONE):
        fill_store(store, made)
    odd_texts(store, ODD)
    more = [("trak", 20, seed) for seed in range(2, 30)]
    record = store.read_experiment(HALF_DONE.name)
    assert record is not None
    store.write_experiment(HALF_DONE.name, record.configuration, more)
    store.write_experiment("empty-00000003", {"dataset": "insects", "model": "tiny"}, [])
    found = {results.name: results for results in read_results(store)}
    hrefs = {name: f"{name.rpartition('-')[0]}.html" for name in found}
    for name, results in found.items():
        page = report_page(results, index_href="index.html", damaged=["fits/f1.parquet is damaged: <cut> short"])
        (folder / hrefs[name]).write_text(page, encoding="utf-8")
    (folder / "index.html").write_text(index_page(list(found.values()), hrefs), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    """One Chromium for all tests of this file, ended with them."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium to open the pages in; apt-get install chromium")
    with playwright.sync_playwright() as started:
        # The root of a container may not use the sandbox; the pages are this project's own.
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page, with what it said and asked for."""

    def __init__(self, browser: "playwright.Browser", path: Path, **options: object) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.requested: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.goto(path.as_uri())


@pytest.fixture
def opened(browser: "playwright.Browser", pages: Path) -> Iterator[object]:
    """Opens a page by its name; closed again at the end of the test."""
    made: list[Opened] = []

    def open_page(name: str, **options: object) -> Opened:
        made.append(Opened(browser, pages / f"{name}.html", **options))
        return made[-1]

    yield open_page
    for one in made:
        one.context.close()


NAMES = ("odd", "half-done", "empty", "index")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_silent_loads_nothing_and_fits_its_screen(opened, pages: Path, name: str) -> None:
    for width in WIDTHS:
        found = opened(name, viewport={"width": width, "height": 900})
        assert found.said == []
        assert found.requested == [(pages / f"{name}.html").as_uri()]
        assert "broken" not in found.page.title()
        assert found.page.evaluate("document.scrollingElement.scrollWidth") <= width
        outside = """width => [...document.querySelectorAll('main *')]
            .filter(one => !one.closest('.scroll, .drawing') && one.getBoundingClientRect().right > width + 1)
            .map(one => one.outerHTML.slice(0, 80))"""
        assert found.page.evaluate(outside, width) == []
    ids = found.page.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))
    broken = """[...document.querySelectorAll('a[href^="#"]')].map(a => a.getAttribute('href').slice(1))
        .filter(id => !document.getElementById(id))"""
    assert found.page.evaluate(broken) == []


def values(page: "playwright.Page", table: str, column: str) -> list[str]:
    """The raw values of a column, in the rows' order on the page."""
    return page.evaluate(
        """([table, column]) => {
            const block = document.getElementById(table);
            const index = [...block.querySelectorAll('th')].findIndex(th => th.dataset.name === column);
            return [...block.querySelectorAll('tbody tr')].map(row => row.cells[index])
                .map(cell => cell.dataset.key ?? cell.textContent.trim());
        }""",
        [table, column],
    )


def head(page: "playwright.Page", table: str, column: str) -> "playwright.Locator":
    return page.locator(f"#{table} th[data-name='{column}'] button")
