"""The pages in a real browser: silent, closed to the network, usable by mouse, keyboard, phone and printer."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from made_up_store import MadeUp, fill_store

from d3m_ray.analysis.figures.catalogue import all_figures
from d3m_ray.analysis.figures.files import svg
from d3m_ray.analysis.report.cells import SHOWN_ROWS
from d3m_ray.analysis.report.index import index_page
from d3m_ray.analysis.report.page import report_page
from d3m_ray.analysis.results import read_results
from d3m_ray.store.store import Store

playwright = pytest.importorskip("playwright.sync_api", reason="playwright, of the extra `dev`, is not installed")

ODD = MadeUp(
    name="odd-00000001",
    groups=("</script><script>throw 1</script>", "a\u202eb\x00c", "$x_1$ & <b>bold</b>", "long name " * 20),
    label_names=('"kind"', "rude'>"),
    numbers=(20, 40),
    rules={"balanced": (24, "erm")},
    seeds=tuple(range(5)),
    num_train=80,
    num_val=80,
    num_test=160,
)
HALF_DONE = MadeUp(name="half-done-00000002", seeds=(0, 1), numbers=(20,), num_train=80, num_val=80, num_test=160)
pytestmark = pytest.mark.slow
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
        draw = list(all_figures(results).items())[:2] if name == ODD.name else []  # the others have tests of their own
        drawn = {figure: svg(draw_it()) for figure, draw_it in draw}
        damaged = ["fits/f1.parquet is damaged: <cut> short"]
        page = report_page(results, drawn, index_href="index.html", damaged=damaged)
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


def test_a_table_sorts_by_numbers_and_by_text_and_keeps_missing_values_last(opened) -> None:
    page = opened("odd").page
    for column in ("fpr", "num_examples"):  # the first is missing in cells of one label
        for order in ("ascending", "descending"):
            head(page, "groups", column).click()
            assert page.locator(f"#groups th[data-name='{column}']").get_attribute("aria-sort") == order
            found = values(page, "groups", column)
            known = [float(value) for value in found if value]
            assert known == sorted(known, reverse=order == "descending")
            assert found[len(known) :] == [""] * (len(found) - len(known))
    assert "" in values(page, "groups", "fpr")
    head(page, "groups", "method").press("Enter")
    methods = values(page, "groups", "method")
    assert methods == sorted(methods)
    assert len(set(methods)) > 2
    assert page.locator("#groups th[aria-sort]").count() == 1


def test_a_long_table_is_short_until_it_is_asked_for_and_can_be_filtered(opened) -> None:
    page = opened("odd").page
    rows = page.locator("#contrasts tbody tr")
    total, shown = rows.count(), page.locator("#contrasts tbody tr:visible").count()
    assert shown == SHOWN_ROWS < total
    assert page.locator("#contrasts output").inner_text() == f"{shown} of {total} rows"
    page.locator("#contrasts .tools button").first.click()
    assert page.locator("#contrasts tbody tr:visible").count() == total
    page.locator("#contrasts .tools button").first.click()
    page.locator("#contrasts .tools input").fill("TRAK worst_cell")
    matching = page.locator("#contrasts tbody tr:visible")
    assert 0 < matching.count() < total
    assert all("trak" in text and "worst_cell" in text for text in matching.all_inner_texts())
    page.locator("#contrasts .tools input").fill("no such row")
    assert matching.count() == 0
    page.locator("#contrasts .tools input").fill("")
    assert matching.count() == shown


def test_a_table_is_saved_as_csv_without_a_network(opened, tmp_path: Path) -> None:
    found = opened("odd", accept_downloads=True)
    with found.page.expect_download() as download:
        found.page.locator("#base .tools button", has_text="CSV").click()
    download.value.save_as(tmp_path / "base.csv")
    saved = pd.read_csv(tmp_path / "base.csv")
    assert download.value.suggested_filename == "base.csv"
    assert list(saved.columns[:3]) == ["num_seeds", "group", "num_examples"]
    assert saved["group"].tolist() == values(found.page, "base", "group")
    assert saved["accuracy"].between(0, 1).all()
    assert all(url.startswith(("file:", "blob:file:")) for url in found.requested)


def test_texts_are_veiled_until_they_are_asked_for_one_by_one_or_all(opened) -> None:
    page = opened("odd").page
    cells = page.locator("td.veiled")
    first = cells.first

    def blurred() -> int:
        return page.locator("td.veiled bdi").evaluate_all(
            "all => all.filter(a => getComputedStyle(a).filter !== 'none').length"
        )

    total = cells.count()
    assert blurred() == total > 0
    assert first.locator("bdi").get_attribute("aria-hidden") == "true"
    first.locator("button").press("Enter")
    assert blurred() == total - 1
    assert first.locator("bdi").get_attribute("aria-hidden") == "false"
    assert first.locator("button").get_attribute("aria-expanded") == "true"
    first.locator("button").press("Space")
    assert blurred() == total
    first.locator("bdi").click()
    assert blurred() == total - 1
    page.locator(".switch").click()
    assert blurred() == 0
    shown = " ".join(page.locator("td.veiled bdi").all_inner_texts())
    for part in ("</script><script>", "[U+202E]right", "\u2400", "(9,400 more characters)", "&amp; &lt;b&gt;"):
        assert part in shown
    assert page.evaluate("document.scrollingElement.scrollWidth") <= WIDTHS[1]
    page.locator(".switch").click()
    assert blurred() == total


def test_it_prints_over_several_pages_with_hidden_texts_left_out(opened, tmp_path: Path) -> None:
    page = opened("odd").page
    page.locator("td.veiled button").first.click()
    page.emulate_media(media="print")
    shown = page.locator("td.veiled bdi").evaluate_all("all => all.map(a => getComputedStyle(a).display !== 'none')")
    assert shown == [True] + [False] * (len(shown) - 1)
    assert page.locator("#contrasts tbody tr:visible").count() == page.locator("#contrasts tbody tr").count()
    document = page.pdf(prefer_css_page_size=True)
    assert document.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", document)) > 3


def contrasts(page: "playwright.Page", selector: str) -> list[float]:
    """The ratio of luminance of each element's text to what it stands on, as WCAG 2.2 has it."""
    return page.evaluate(
        """selector => {
            const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
            const luminance = colour => {
                const [r, g, b] = numbers(colour).map(c => c / 255)
                    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const below = one => {
                const colour = getComputedStyle(one).backgroundColor;
                return numbers(colour)[3] === 0 && one.parentElement ? below(one.parentElement) : colour;
            };
            return [...document.querySelectorAll(selector)].map(one => {
                const both = [luminance(getComputedStyle(one).color), luminance(below(one))].sort((a, b) => b - a);
                return (both[0] + 0.05) / (both[1] + 0.05);
            });
        }""",
        selector,
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_legible_in_light_and_in_dark(opened, scheme: str) -> None:
    page = opened("odd", color_scheme=scheme).page
    found = contrasts(page, "p, h1, h2, h3, th, td, td > *, dt, dd, li, a, summary, .interval, .tools *, .meter *")
    assert len(found) > 100
    assert min(found) >= MIN_CONTRAST
    is_dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(253, 253, 251)"
    assert is_dark == (scheme == "dark")


def test_without_scripts_every_row_and_legend_is_readable(opened) -> None:
    page = opened("odd", java_script_enabled=False).page
    assert page.locator("#contrasts tbody tr:visible").count() == page.locator("#contrasts tbody tr").count() > 15
    assert page.locator("noscript").first.is_visible()
    page.locator("#contrasts summary").click()
    assert page.locator("#contrasts dd").first.is_visible()


def test_the_index_leads_to_every_page_and_back(opened, pages: Path) -> None:
    page = opened("index").page
    for name in ("odd", "half-done", "empty"):
        page.goto((pages / "index.html").as_uri())
        page.locator(f"a[href='{name}.html']").click()
        page.locator("header a").first.click()
        assert page.url == (pages / "index.html").as_uri()
