"""The pages as documents: valid, self-contained, escaped, and complete in what they say is missing."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_store import STUDY, MadeUp, fill_store

from d3m_ray.analysis.figures.catalogue import all_figures
from d3m_ray.analysis.figures.files import svg
from d3m_ray.analysis.report.cells import FORMATS, MAX_COLUMNS, MAX_ROWS, SHOWN_ROWS, Column, as_seconds, table_view
from d3m_ray.analysis.report.columns import known_columns
from d3m_ray.analysis.report.costs import scoring_costs, sharing, training_costs
from d3m_ray.analysis.report.drawings import drawings
from d3m_ray.analysis.report.index import index_page
from d3m_ray.analysis.report.page import report_page
from d3m_ray.analysis.report.visible import shortened, visible
from d3m_ray.analysis.results import Results, read_results
from d3m_ray.store.store import Store

VOID = {"meta", "input", "br", "img", "link", "hr"}
OPEN_ENDED = {"path", "use", "rect", "circle"}  # may close themselves in SVG
NAMESPACES = ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink")
SMALL = {"numbers": (20,), "num_train": 64, "num_val": 64, "num_test": 96, "rules": {"balanced": (16, "erm")}}
EVIL = "</script><script>alert(1)</script>"
MADE = MadeUp(
    name="evil-00000001",
    groups=(EVIL, 'b" onclick="x', "{{ 7 * 1003 }}", "d"),
    seeds=tuple(range(5)),
    **SMALL,
)
REASON = "RuntimeError: <b>out of memory</b>"


class Document(HTMLParser):
    """The elements of a page, held to close in the order in which they open."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open[-1:] == ["script"] else self.texts).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def fail_trials(store: Store, made: MadeUp) -> None:
    """Two trials of `trak` are recorded as failed and none of them is stored; others are asked for and missing."""
    record = store.read_experiment(made.name)
    assert record is not None
    failed = [("trak", 20, seed) for seed in (90, 91)]
    store.write_experiment(made.name, record.configuration, [*failed, ("random", 20, 92)], record.keys)
    for method, number, seed in failed:
        key = f"failed-{seed}"
        row = {"trial_key": key, "experiment": made.name, "num_removed": number, "seed": seed, "error": REASON}
        frame = pd.DataFrame([row | {"traceback": "", "created_at": pd.Timestamp("2026-01-02", tz="UTC")}])
        store.write("failures", key, frame.astype({"num_removed": "Int64"}), {}, method)


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    """By name: one of odd names with failed and missing trials, one of few seeds and no texts, one that is empty."""
    store = Store(tmp_path_factory.mktemp("store"))
    fill_store(store, MADE)
    fail_trials(store, MADE)
    fill_store(store, MadeUp(name="few-00000002", seeds=(0, 1), has_texts=False, methods=("trak", "random"), **SMALL))
    store.write_experiment("empty-00000003", {"dataset": "insects", "model": "tiny"}, [("trak", 5, 0)])
    return {results.name: results for results in read_results(store)}


@pytest.fixture(scope="module")
def pages(experiments: dict[str, Results]) -> dict[str, Document]:
    """Every page, and `index`, read as a document."""
    evil = experiments[MADE.name]
    drawn = {name: svg(draw()) for name, draw in list(all_figures(evil).items())[:1]}
    damaged = ["fits/f1.parquet is damaged: <cut>"]
    found = {
        name: report_page(
            results, drawn if results is evil else {}, {n: [f"{n}.pdf"] for n in drawn}, "../i.html", damaged
        )
        for name, results in experiments.items()
    }
    hrefs = {name: f"{name}/report.html" for name in experiments}
    found["index"] = index_page(list(experiments.values()), hrefs, damaged)
    return {name: Document(page) for name, page in found.items()}


NAMES = (MADE.name, "few-00000002", "empty-00000003", "index")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_well_formed_and_refers_to_nothing_outside(pages: dict[str, Document], name: str) -> None:
    document = pages[name]
    assert document.open == []
    for tag, attribute, value in document.attributes:
        assert not attribute.startswith("on"), f"{tag} has a handler"
        if "://" in value:
            assert attribute.startswith("xmlns")
            assert value in NAMESPACES
        if attribute in ("src", "href", "xlink:href", "action"):
            assert re.fullmatch(r"#.+|(\.\./)?[\w.%-]+(/[\w.%-]+)*\.(html|pdf|png|svg)", value), value
    assert not any("url(" in value and "url(#" not in value for _, _, value in document.attributes)
    assert "http" not in "".join(document.scripts)
    assert len(document.scripts) == 1, "a text of the store became a script"
    ids = [value for _, attribute, value in document.attributes if attribute == "id"]
    assert len(ids) == len(set(ids))
    policy = [value for tag, attribute, value in document.attributes if tag == "meta" and "default-src" in value]
    assert policy[0].startswith("default-src 'none'")
    assert "script-src 'sha256-" in policy[0]


def test_names_of_users_are_text_whatever_they_hold(pages: dict[str, Document]) -> None:
    text = pages[MADE.name].text
    for name in MADE.groups:
        assert name in text
    assert REASON in text
    assert "7021" not in text  # no template in a name is run


def test_the_page_has_every_part_with_its_words(pages: dict[str, Document]) -> None:
    text = pages[MADE.name].text
    for part in (
        "Does removing train examples of evil, or training otherwise",
        "64 train, 64 val, 96 test",
        "a repeated text: 3",
        "labels are words",
        "learning_rate 5e-05",
        "The contrasts declared beforehand",
        "Student's 95% interval",
        "trak: the most harmful",
        "arms that train on the same examples with the same seed share a model".capitalize(),
        "2 failed",
        "1 missing",
        "trak, 20 removed, seed 90; trak, 20 removed, seed 91",
        "fits/f1.parquet is damaged: <cut>",
    ):
        assert part in text, part


def test_the_headline_and_what_speaks_against_it_come_first(pages: dict[str, Document]) -> None:
    text = pages["few-00000002"].text
    start = text.index("No conclusion: 2 seeds cannot tell an arm from chance")
    assert start < text.index("What speaks against reading more into it") < text.index("Fewer than 5 seeds (2)")
    assert text.index("Fewer than 5 seeds (2)") < text.index("The setting Corpus")
    assert text.count("Fewer than 5 seeds (2)") == 1


def test_texts_that_are_not_stored_are_explained(pages: dict[str, Document]) -> None:
    assert "The store keeps no texts of this corpus" in pages["few-00000002"].text
    assert "The store keeps no texts of this corpus" not in pages[MADE.name].text


def test_an_empty_experiment_says_what_is_missing(pages: dict[str, Document]) -> None:
    text = pages["empty-00000003"].text
    for part in (
        "No conclusion: no test trial is stored.",
        "No trial is stored: there is no result to compare.",
        "The corpus is not stored (table examples)",
        "The store holds no trial to draw.",
        "The store holds no arm with a model to compare it with.",
        "The store holds no alignments of this experiment.",
        "0 trials done 0 failed 1 missing",
    ):
        assert part in text, part


def test_the_index_has_each_headline_and_the_settings_that_differ(pages: dict[str, Document]) -> None:
    text = pages["index"].text
    assert "3 experiments" in text
    assert "No conclusion: no test trial is stored." in text
    assert "Settings in which they differ" in text
    assert "training.num_epochs" in text
    assert "fits/f1.parquet is damaged" in text
    hrefs = [value for tag, attribute, value in pages["index"].attributes if (tag, attribute) == ("a", "href")]
    assert hrefs == [f"{name}/report.html" for name in sorted(NAMES[:3])]


def test_the_thesis_protocol_is_said_to_be_chosen_on_test(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_experiment("old-1", {"dataset": "insects", "model": "tiny", "protocol": "thesis"}, [("trak", 5, 0)])
    (results,) = read_results(store)
    text = Document(report_page(results, {})).text
    assert "was chosen ON TEST" in text
    assert "chosen on train and TEST" in text


def test_a_foreign_record_gives_a_page_of_what_it_has(tmp_path: Path) -> None:
    store = Store(tmp_path)
    odd = {
        "label_names": [0, 1],
        "num_dropped": ["x"],
        "notes": "one",
        "training": 3,
        "corpus": None,
        "warnings": {"a": 1},
    }
    store.write_experiment(
        "odd-1", {"dataset": "", "model": "tiny", **odd, "deep": {"a": {"b": [None, True, 1.5]}}}, []
    )
    (results,) = read_results(store)
    text = Document(report_page(results, {})).text
    assert "labels 0, 1; 1 is the positive one" in text
    assert "a.b not given, yes, 1.5" in text
    assert "training 3" in text
    assert "corpus not given" in text


def test_an_lds_has_its_own_question_answer_and_table(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_experiment("insects-1-lds", {"dataset": "insects", "model": "tiny"}, [("random", 5, 0)])
    for method, mean in (("trak", 0.25), ("random", float("nan")), ("ekfac", 0.5)):
        rows = [("query", "val/1", 0.9), ("query", "mean", mean), ("group", "ant", 0.125), ("group", "mean", 0.1)]
        frame = pd.DataFrame(rows, columns=["kind", "target", "lds"])
        frame = frame.assign(lds_low=frame["lds"] - 0.05, lds_high=frame["lds"] + 0.05, num_subsets=20)
        frame = frame.assign(**STUDY, lds_key=method, experiment="insects-1-lds", scoring_seconds=1.5)
        store.write("lds", method, frame, {}, method)
    (results,) = read_results(store)
    text = Document(report_page(results, {})).text
    assert "Which attribution method's scores predict what retraining does?" in text
    assert "per val example, highest first" in text
    assert "20 subsets that keep 50% of train: ekfac 0.50 (0.45 to 0.55); trak 0.25 (0.20 to 0.30)." in text
    assert "two fits of one subset correlate 0.40 [0.10, 0.60], so a perfect method would reach about 0.76" in text
    assert "Linear datamodeling scores" in text
    assert "val/1" not in text
    assert "The contrasts declared beforehand" not in text


def test_shared_fits_are_counted_and_timed_once(experiments: dict[str, Results]) -> None:
    results = experiments[MADE.name]
    shared = sharing(
        results
    )  # five seeds: three methods share a base model; three arms of 20 and one of 16 have their own
    assert (shared.num_trials, shared.num_fits, shared.num_saved) == (35, 25, 10)
    assert shared.train_seconds == 25 * 12.5
    assert shared.saved_seconds == 10 * 12.5
    (row,) = training_costs(results).to_dict("records")
    assert (row["objective"], row["num_train"], row["num_fits"]) == ("erm", "44 to 64", 25)
    assert row["seconds_per_fit"] == 12.5
    assert row["train_examples_per_second"] == pytest.approx(57 * 32 / 12.5)  # not of whole epochs: steps times batch
    scoring = scoring_costs(results).set_index("method")
    assert scoring.loc["trak", "scored_examples_per_second"] == pytest.approx(64 / 2.5)


def test_examples_of_whole_epochs_are_counted_exactly(experiments: dict[str, Results]) -> None:
    results = experiments[MADE.name]
    whole = Results(results.store, results.record, results.all_trials.assign(num_train=40, num_steps=6))
    (row,) = training_costs(whole).to_dict("records")
    assert row["train_examples_per_second"] == pytest.approx(3 * 40 / 12.5)


def test_a_table_holds_its_first_rows_and_columns_and_says_so() -> None:
    frame = pd.DataFrame(np.ones((MAX_ROWS + 100, MAX_COLUMNS + 2)))
    frame.columns = [f"c{number}" for number in range(MAX_COLUMNS + 2)]
    view = table_view("x", "X", "Rows.", frame, [Column(name, name, "A number.", FORMATS["number"]) for name in frame])
    assert (len(view.rows), len(view.columns), view.num_shown) == (MAX_ROWS, MAX_COLUMNS, SHOWN_ROWS)
    assert (
        view.limits
        == "This page has the first 400 of 500 rows and the first 40 of 42 columns; the store has the others."
    )
    assert table_view("x", "X", "Rows.", frame.head(SHOWN_ROWS + 1), view.columns).num_shown == SHOWN_ROWS + 1
    assert table_view("x", "X", "Rows.", frame.head(3), view.columns[:2]).limits == ""


def test_a_column_that_is_missing_throughout_is_left_out_and_bounds_stand_beside_their_value() -> None:
    known = known_columns()
    frame = pd.DataFrame(
        {"difference": [0.0123, np.nan, 0.5], "t_low": [-0.01, np.nan, np.nan], "t_high": [0.03, 1, 1]}
    )
    view = table_view("x", "X", "Rows.", frame.assign(p_t=np.nan), [known["difference"], known["p_t"]])
    assert [column.name for column in view.columns] == ["difference"]
    first, missing, without = (row[0] for row in view.rows)
    assert (first.text, first.key, first.interval) == ("+1.2", "0.0123", "[\u22121.0, +3.0]")
    assert (first.bounds, without.bounds, without.interval) == (("-0.01", "0.03"), ("", ""), "")
    assert (missing.text, missing.key) == ("\u2013", "")


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("count", 1234567, "1,234,567"),
        ("count", float("inf"), "\u221e"),
        ("percent", 0.12345, "12.3%"),
        ("points", -0.0312, "\u22123.1"),
        ("points", -0.0001, "0.0"),
        ("points_size", 0.0312, "3.1"),
        ("point_list", "0.01 -0.02", "+1.0  \u22122.0"),
        ("decimal", 0.8, "0.800"),
        ("number", -42700.4, "\u221242,700"),
        ("number", 1.5, "1.500"),
        ("ratio", 1.5, "1.50\u00d7"),
        ("p_value", 0.0001, "<0.001"),
        ("p_value", 0.0312, "0.031"),
        ("seconds", 90, "90.0 s"),
        ("seconds", 600, "10.0 min"),
        ("seconds", 36000, "10.0 h"),
    ],
)
def test_values_are_written_with_their_units(kind: str, value: object, text: str) -> None:
    assert FORMATS[kind](value) == text
    assert FORMATS["seconds"] is as_seconds


def test_every_column_has_a_label_and_a_sentence() -> None:
    for column in known_columns().values():
        assert column.label
        assert column.explanation.endswith(".")


def test_what_has_no_place_inside_a_page_is_taken_out_of_a_drawing() -> None:
    text = (
        '<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/dtd"><!-- a > b -->'
        '<svg viewBox="0 0 612.5 300"><metadata>x</metadata><script>x</script><title>A &amp; b</title><g/></svg>'
    )
    (drawing,) = drawings({"forest": text}, {"forest": ["forest.pdf"]})
    assert drawing.svg == '<svg viewBox="0 0 612.5 300"><title>A &amp; b</title><g/></svg>'
    assert (drawing.title, drawing.width, drawing.files) == ("A & b", 612, ["forest.pdf"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ünïcode, 文, 😀, tab\tand\nline", "plain text, ünïcode, 文, 😀, tab\tand\nline"),
        ("\x00a\x1b[31m\x7f\x85", "␀a␛[31m␡[U+0085]"),
        ("a\u202eb\u2066c\u200f", "a[U+202E]b[U+2066]c[U+200F]"),
        ("\ufffe\ufdd0\ud800\U0001ffff", "[U+FFFE][U+FDD0][U+D800][U+1FFFF]"),
        ("one\r\ntwo\rthree", "one\ntwo␍three"),
    ],
)
def test_what_no_eye_sees_is_spelt_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_long_text_says_how_much_more_there_is() -> None:
    assert shortened("a" * 10, 10) == "a" * 10
    assert shortened("a" * 1500, 10) == "aaaaaaaaaa… (1,490 more characters)"
