"""ToxiGen (Hartvigsen et al. 2022, arXiv 2203.09509): machine-generated train and val, human-labelled test."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from d3m_ray.data.checks import DataError, Table, join_tables, make_splits
from d3m_ray.data.files import check_is_corpus
from d3m_ray.data.sampling import NUM_LABELS, cell_counts, drop_repeats, drop_texts_of, sample_cells, split_off_val
from d3m_ray.data.tables import as_table, load_from_hub, read_table
from d3m_ray.data.values import numbers_of, texts_of, words_of
from d3m_ray.errors import InputError
from d3m_ray.records import Splits
from d3m_ray.wording import counted

HUB_NAME = "toxigen/toxigen-data"
GENERATED_COLUMNS = ("generation", "generation_method", "group", "prompt_label")
ANNOTATED_COLUMNS = ("text", "target_group", "toxicity_human")
GROUPS = (
    "asian", "black", "chinese", "jewish", "latino", "lgbtq", "mental_dis", "mexican", "middle_east", "muslim",
    "native_american", "physical_dis", "women",
)  # fmt: skip
ALIASES = {  # how 940 rows of the annotated configuration name the groups
    "asian folks": "asian",
    "black folks / african-americans": "black",
    "black/african-american folks": "black",
    "chinese folks": "chinese",
    "folks with mental disabilities": "mental_dis",
    "folks with physical disabilities": "physical_dis",
    "jewish folks": "jewish",
    "latino/hispanic folks": "latino",
    "lgbtq+ folks": "lgbtq",
    "mexican folks": "mexican",
    "middle eastern folks": "middle_east",
    "muslim folks": "muslim",
    "native american folks": "native_american",
    "native american/indigenous folks": "native_american",
}
REDUCED_GROUPS = ("women", "black", "lgbtq", "jewish")
REDUCTION = 4  # neutral rows of these groups are cut to a quarter: the planted spurious correlation
TOXIC_ABOVE = 2  # toxicity_human runs from 1 to 5
MIN_TRAIN_SAMPLES = 40  # a quarter of half of it leaves val an example of the smallest cell
PUBLISHED = ("annotated_train", "annotated_test")  # the files of the configuration annotated
ENDINGS = (".csv", ".csv.gz", ".parquet")
BYTES_REPR = re.compile(r"""b(['"]).*\1""", re.DOTALL)


@dataclass(frozen=True)
class Toxigen:
    """How ToxiGen is cut. Train labels are those of the prompts, test labels those of people."""

    train_samples_per_group: int = 2000
    """Generated rows of a group for train and val (80/20), half of each label."""
    test_samples_per_group: int = 400
    """Human-labelled rows of a group for test, half of each label."""
    val_from_annotated: bool = False
    """Draw val from a fifth of the human-labelled rows; train then keeps all of the generated ones."""
    seed: int = 0
    """Decides which rows are taken."""

    def __post_init__(self) -> None:
        for flag, value, minimum in (
            ("--train-samples-per-group", self.train_samples_per_group, MIN_TRAIN_SAMPLES),
            ("--test-samples-per-group", self.test_samples_per_group, 2),
            ("--seed", self.seed, 0),
        ):
            if value < minimum:
                raise InputError(f"{flag} is at least {minimum}, received {value}")


def load_toxigen(options: Toxigen, source: Path | None) -> Splits:
    """The splits, from a folder of toxigen.csv, annotated_train.csv and annotated_test.csv, or from the hub.

    The files have the schemas of the hub's configurations `train` and `annotated`; one annotated.csv may stand for the
    two. Ids are `generated/row` and `annotated/row`, rows counted from 0, those of annotated_test after
    annotated_train's. Raises DataError where a file breaks a rule or has too few rows of a cell.
    """
    generated, annotated = _read(source)
    num_dropped: dict[str, int] = {}
    pool = generated_rows(generated, num_dropped)
    people = annotated_rows(annotated, num_dropped)
    rng = np.random.default_rng(options.seed)
    frames: dict[str, pd.DataFrame] = {}
    if options.val_from_annotated:
        people, frames["val"] = split_off_val(people, rng)
    frames["test"] = _sample_test(people, options, rng, annotated.source)
    frames["train"] = pool
    drop_texts_of(frames, "train", ("test", "val") if options.val_from_annotated else ("test",), num_dropped)
    frames["train"] = _sample_train(frames["train"], options, rng, generated.source)
    if not options.val_from_annotated:
        frames["train"], frames["val"] = split_off_val(frames["train"], rng)
    return make_splits("toxigen", {split: frames[split] for split in ("train", "val", "test")}, num_dropped)


def _read(source: Path | None) -> tuple[Table, Table]:
    if source is not None:
        return _read_folder(source)
    generated = load_from_hub(HUB_NAME, "train")["train"].to_pandas()
    annotated = load_from_hub(HUB_NAME, "annotated")
    frame = pd.concat([annotated[split].to_pandas() for split in ("train", "test")])
    return (
        as_table(f"{HUB_NAME} (train)", generated, GENERATED_COLUMNS),
        as_table(f"{HUB_NAME} (annotated)", frame, ANNOTATED_COLUMNS),
    )


def _read_folder(folder: Path) -> tuple[Table, Table]:
    """The generated rows, and the annotated ones of one file or of the published two, train before test."""
    stems = ("toxigen", "annotated", *PUBLISHED)
    found = {stem: path for stem in stems for ending in ENDINGS if (path := folder / f"{stem}{ending}").exists()}
    published = any(stem in found for stem in PUBLISHED)
    if published and "annotated" in found:
        raise DataError(
            f"{folder}: the annotated rows stand in {' and '.join(PUBLISHED)}, or in one file, annotated; it holds "
            f"{', '.join(path.name for path in found.values())}: remove the one or the two"
        )
    parts = PUBLISHED if published else ("annotated",)
    rule = (
        "holds ToxiGen under its published names, toxigen.csv, annotated_train.csv and annotated_test.csv, or with one "
        "annotated.csv; .csv.gz and .parquet will do"
    )
    check_is_corpus(folder, "ToxiGen", {stem: stem in found for stem in ("toxigen", *parts)}, rule)
    annotated = join_tables([read_table(found[stem], ANNOTATED_COLUMNS) for stem in parts])
    return read_table(found["toxigen"], GENERATED_COLUMNS), annotated


def generated_rows(table: Table, num_dropped: dict[str, int]) -> pd.DataFrame:
    """Complete rows, the first of each text, with `method` beside the columns that make_splits takes."""
    raw = pd.DataFrame(
        {
            "text": texts_of(table, "generation").map(clean_text, na_action="ignore"),
            "label": numbers_of(table, "prompt_label"),
            "group": words_of(table, "group"),
            "method": words_of(table, "generation_method"),
        }
    )
    complete = _complete(raw)
    fix = "the hub's configuration train has the right file"
    table.refuse(~complete["label"].isin(range(NUM_LABELS)), "prompt_label is 0 or 1", fix, table.frame["prompt_label"])
    rows = complete.assign(
        example_id=[f"generated/{row}" for row in complete.index],
        label=complete["label"].astype("int64"),
        group=_known_groups(table, complete["group"]),
    )
    unique = drop_repeats(rows, per_group=False)
    num_dropped["generated row without text, group, label or method"] = len(raw) - len(complete)
    num_dropped["generated text repeats another"] = len(rows) - len(unique)
    return unique


def annotated_rows(table: Table, num_dropped: dict[str, int]) -> pd.DataFrame:
    """Complete rows, the first of each text, with the columns that make_splits takes."""
    raw = pd.DataFrame(
        {
            "text": texts_of(table, "text").map(clean_text, na_action="ignore"),
            "toxicity": numbers_of(table, "toxicity_human"),
            "group": words_of(table, "target_group"),
        }
    )
    complete = _complete(raw)
    toxicity = complete["toxicity"]
    fix = "the hub's configuration annotated has the right file"
    table.refuse(~toxicity.between(1, 5), "toxicity_human is from 1 to 5", fix, table.frame["toxicity_human"])
    rows = pd.DataFrame(
        {
            "example_id": [f"annotated/{row}" for row in complete.index],
            "text": complete["text"],
            "label": (toxicity > TOXIC_ABOVE).astype("int64"),
            "group": _known_groups(table, complete["group"]),
        }
    )
    unique = drop_repeats(rows, per_group=False)
    num_dropped["annotated row without text, group or toxicity"] = len(raw) - len(complete)
    num_dropped["annotated text repeats another"] = len(rows) - len(unique)
    return unique


def _complete(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[~(frame.isna() | (frame == "")).any(axis="columns")]


def clean_text(text: str) -> str:
    """The text inside the repr of a bytes object (`b'...'`), its escapes resolved; others without outer white space."""
    stripped = text.strip()
    if BYTES_REPR.fullmatch(stripped):
        try:
            stripped = ast.literal_eval(stripped).decode("utf-8", errors="replace")
        except (SyntaxError, ValueError):  # no repr after all, such as one with an inner quote: take what it wraps
            stripped = stripped[2:-1]
    return stripped.strip()


def _known_groups(table: Table, groups: pd.Series) -> pd.Series:
    names = groups.str.strip().str.lower()
    names = names.map(ALIASES).fillna(names)
    table.refuse(~names.isin(GROUPS), f"a group is one of {', '.join(GROUPS)}", "correct or leave out the row", groups)
    return names


def _sample_test(people: pd.DataFrame, options: Toxigen, rng: np.random.Generator, source: str) -> pd.DataFrame:
    size = options.test_samples_per_group // NUM_LABELS
    sizes = {(group, label): size for group in GROUPS for label in range(NUM_LABELS)}
    _check_cells(people, sizes, source, "--test-samples-per-group")
    return sample_cells(people, sizes, rng)


def _sample_train(pool: pd.DataFrame, options: Toxigen, rng: np.random.Generator, source: str) -> pd.DataFrame:
    """As many rows of each group within each generation method, then so many of each group and label."""
    counts = pool.groupby(["method", "group"]).size().unstack(fill_value=0).reindex(columns=GROUPS, fill_value=0)
    smallest = counts.min(axis="columns").to_dict()
    parts = [
        rows.sample(n=smallest[method], random_state=rng) for (method, _), rows in pool.groupby(["method", "group"])
    ]
    balanced = pd.concat(parts).sort_index()
    half = options.train_samples_per_group // NUM_LABELS
    sizes = {
        (group, label): half // REDUCTION if label == 0 and group in REDUCED_GROUPS else half
        for group in GROUPS
        for label in range(NUM_LABELS)
    }
    _check_cells(balanced, sizes, f"{source}, balanced within generation methods", "--train-samples-per-group")
    return sample_cells(balanced, sizes, rng)


def _check_cells(frame: pd.DataFrame, sizes: dict[tuple[str, int], int], source: str, flag: str) -> None:
    counts = cell_counts(frame, GROUPS)
    group, label = min(sizes, key=lambda cell: counts[cell] / sizes[cell])
    if counts[group, label] < sizes[group, label]:
        raise DataError(
            f"{source}: {flag} asks for {counted(sizes[group, label], 'row')} of group {group} and label {label}, "
            f"there are {counts[group, label]}; lower it, or give every group more rows of both labels"
        )
