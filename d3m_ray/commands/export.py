"""The command `export`: the train split without what an arm removed, as a corpus, and why each other row went."""

import json
import shlex
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from d3m_ray.analysis.choice import chosen_numbers
from d3m_ray.analysis.export import Export, check_made_by, evidence_of, evidence_of_rounds, split_train
from d3m_ray.analysis.results import PLAIN_OBJECTIVE, Results, newest_trials, read_results
from d3m_ray.commands.arguments import checked_file
from d3m_ray.commands.terminal import EXIT_FAILED, say
from d3m_ray.data.files import REMOVED_SUFFIX
from d3m_ray.data.own import CUT_OFF
from d3m_ray.entry_points import load_plugins
from d3m_ray.errors import InputError
from d3m_ray.rules import check_known
from d3m_ray.selection.arms import ARMS
from d3m_ray.store.errors import StoreError
from d3m_ray.store.files import check_writable_folder, write_file
from d3m_ray.store.store import Store

Row = Mapping[Hashable, Any]  # of a frame, by column

REASONS: Mapping[str, str] = {
    "random": "drawn at random",
    "random_best": "drawn at random",
    "random_majority": "drawn at random from the cells of lowest val loss",
    "balanced": "drawn at random, so that its cell is as large as the smallest",
    "balanced_group": "drawn at random, so that its group is as large as the smallest",
    "balanced_label": "drawn at random, so that its label is as frequent as the rarest",
}
"""Why an arm that reads no alignment removes an example."""


@dataclass(frozen=True)
class ExportRequest:
    """Which arm's train split is asked for, and where it goes. Raises InputError where the file has no known ending."""

    method: str
    """An arm that removes something."""
    out: str
    num_removed: int | None = None
    """None for the number that val chose."""
    seed: int | None = None
    """Needed where the arm removes other examples under each seed."""
    experiment: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.ending not in _ENCODERS:
            raise InputError(f"--out is a file that ends in {', '.join(_ENCODERS)}; received {self.out!r}")
        if self.num_removed is not None and self.num_removed < 0:
            raise InputError(f"--num-removed is a count from 0; received {self.num_removed}")

    @property
    def ending(self) -> str:
        return Path(self.out).suffix.lower()


def export_train(store: Store, request: ExportRequest) -> int:
    """Write the kept rows to the file and the removed ones beside it; the exit status.

    Raises InputError where the request does not say which removal is meant or a file is in the way, StoreError where
    the store lacks what it takes; nothing is written then.
    """
    out = checked_file(request.out, "name another")
    beside = out.with_name(f"{out.stem}{REMOVED_SUFFIX}{out.suffix}")
    check_writable_folder(out.parent, "the folder of --out")
    for path in (out, beside):
        if path.exists() and not request.overwrite:
            raise InputError(f"export replaces no file, and {path} is there; name another --out, or give --overwrite")
    damaged: dict[str, None] = {}  # each line once, in order
    try:
        _write(store, request, (out, beside), damaged.setdefault)
    finally:
        for line in damaged:
            say(f"error: {line}", "red")
    return EXIT_FAILED if damaged else 0


def _write(store: Store, request: ExportRequest, places: tuple[Path, Path], tell: Callable[[str], None]) -> None:
    """Write the kept rows to the first place and the removed ones to the second, and say so. Raises as export_train."""
    out, beside = places
    results = _results_of(store, request, tell)
    number, why = _number(results, request)
    removed_ids = _removed_ids(results, request, number)
    exported = split_train(results, removed_ids, _evidence(results, request.method, number, removed_ids))
    removed = _with_reasons(exported.removed, request.method)
    exported = replace(exported, removed=removed.assign(method=request.method, num_removed=number))
    found = _found(store, results.name, tell)
    encode = _ENCODERS[request.ending]
    write_file(beside, encode(exported.removed))
    write_file(out, encode(exported.kept))  # last: where it is, the other is
    _tell(results, request, exported, why, places)
    say(f"what the experiment shows: {found}")


def _results_of(store: Store, request: ExportRequest, tell: Callable[[str], None]) -> Results:
    """What the store holds of the method in the one experiment that is meant; damaged files are told and left out.

    Raises StoreError where that leaves open which removal is meant: a trial of the arm is damaged, and the number or
    the seed is not given.
    """
    records = store.read_experiments(tell)
    if not records:
        raise store.without_experiment()
    if request.experiment is not None:
        check_known("--experiment", request.experiment, records)
        records = {request.experiment: records[request.experiment]}
    arms = store.read_all("trials", columns=["experiment", "method"], say=tell).drop_duplicates()
    arms = arms[arms["experiment"].isin(list(records))]
    if arms.empty:
        raise StoreError(f"{store} holds no trial of {', '.join(records)}; run the sweep, which goes on from there")
    check_known("--method", request.method, sorted(set(arms["method"])))
    having = sorted(arms.loc[arms["method"] == request.method, "experiment"])
    if len(having) > 1:
        raise InputError(
            f"{len(having)} experiments of {store} have {request.method}: {', '.join(having)}; name one by --experiment"
        )
    record = records[having[0]]
    alignment = _alignment_of(request.method)
    keys = {table: {n: k for n, k in of.items() if n == alignment} for table, of in record.keys.items()}
    ours = [("experiment", "==", record.name), ("method", "==", request.method)]
    lost: list[str] = []
    trials = newest_trials(store.read_all("trials", filters=ours, say=lost.append))
    if request.num_removed is None or request.seed is None:
        open_trial = next((line for line in lost if f"/trials/method={request.method}/" in line), None)
        if open_trial is not None:
            raise StoreError(
                f"a trial of {request.method} is damaged, perhaps of the removal that is meant: name it by "
                "--num-removed and --seed, or have the trial recorded again"
            )
    return Results(store, replace(record, keys=keys), trials, tell)


def _alignment_of(method: str) -> str | None:
    """The alignment that an arm reads; of one that this version, or a plug-in that is there, does not know, none."""
    load_plugins()
    return ARMS[method].alignment if method in ARMS else None


def _number(results: Results, request: ExportRequest) -> tuple[int, str]:
    """How many examples the removal has, and in words who chose that."""
    fits = results.fits
    if (fits["objective"] != PLAIN_OBJECTIVE).any():
        raise InputError(f"--method is an arm that removes train examples; {request.method} trains on all of them")
    numbers = sorted(set(fits["num_removed"].tolist()))
    if request.num_removed is not None:
        if request.num_removed not in numbers:
            raise InputError(
                f"--num-removed is one of {', '.join(map(str, numbers))}, of which {request.method} has trials; "
                f"received {request.num_removed}"
            )
        return request.num_removed, "as asked for"
    chosen = chosen_numbers(results).get(request.method, 0)
    if request.method in ARMS and ARMS[request.method].best_of is not None:
        return (
            chosen,
            "which val shows to raise the target most" if chosen else "as val shows no number to raise the target",
        )
    num_choices = sum(number > 0 for number in numbers)
    if num_choices > 1:
        return chosen, f"of highest mean val worst-group accuracy among {num_choices} numbers"
    return chosen, "its only number"


def _removed_ids(results: Results, request: ExportRequest, number: int) -> list[str]:
    """The ids of the one removal that is meant."""
    if number == 0:
        return []
    seeds = sorted(results.fits.loc[results.fits["num_removed"] == number, "seed"].tolist())
    if request.seed is not None and request.seed not in seeds:
        raise InputError(
            f"--seed is one of {', '.join(map(str, seeds))}, of which {request.method} has trials with {number} "
            f"removed; received {request.seed}"
        )
    rows = results.removals_of(request.method)
    rows = rows[rows["num_removed"] == number]
    asked = seeds if request.seed is None else [request.seed]
    removals = {seed: rows.loc[rows["seed"] == seed, "example_id"].tolist() for seed in asked}
    lacking = [seed for seed, ids in removals.items() if len(set(ids)) != number]
    if lacking:
        raise StoreError(
            f"{results.store} does not hold all {number} examples that {request.method} removed under seed "
            f"{lacking[0]}; run the same sweep, which records them again"
        )
    if len({frozenset(ids) for ids in removals.values()}) > 1:
        raise InputError(
            f"{request.method} removes other examples under each seed: name one of {', '.join(map(str, seeds))} by "
            "--seed"
        )
    return removals[asked[0]]


def _evidence(results: Results, method: str, number: int, removed_ids: Collection[str]) -> pd.DataFrame | None:
    """What the arm read of the examples that it removed, by example id; None where it read nothing."""
    alignment = _alignment_of(method)
    if alignment is None or number == 0:
        return None
    key = results.fits.loc[results.fits["num_removed"] == number, "trial_key"].iloc[0]
    made_with = results.made_with("trials", key, method)
    rounds = made_with.get("selection", {}).get("rounds", ())
    if not rounds:
        evidence = evidence_of(results, alignment)
        check_made_by(results, alignment, evidence, removed_ids)
        return evidence
    return evidence_of_rounds(results, alignment, [told["alignment_key"] for told in rounds], removed_ids)


def _with_reasons(removed: pd.DataFrame, method: str) -> pd.DataFrame:
    """The removed rows with the reason in words; where an alignment was read, the lowest rank of each round first."""
    if "rank" not in removed:
        return removed.assign(reason=REASONS.get(method, "removed"))
    removed = removed.sort_values(["round", "rank"] if "round" in removed else "rank", ignore_index=True)
    alignment = str(_alignment_of(method))
    return removed.assign(reason=[_reason(row, alignment) for row in removed.to_dict("records")])


def _reason(row: Row, alignment: str) -> str:
    within = f" in round {row['round']}" if "round" in row else ""
    rank = f"rank {row['rank']:,} of {row['num_ranked']:,} from the lowest{within}"
    text = f"{alignment} alignment {row['alignment']:+.4g}, {rank}"
    if "most_hurt_group" not in row:
        return text
    return f"{text}; lowest score {row['most_hurt_score']:+.3g}, for {row['most_hurt_group']}"


def _tell(results: Results, request: ExportRequest, exported: Export, why: str, files: tuple[Path, Path]) -> None:
    """Say what was written, and what belongs beside it."""
    num_removed, num_train = len(exported.removed), len(exported.removed) + len(exported.kept)
    say(f"{results.name}, {request.method}: {num_removed:,} of {num_train:,} train examples removed, {why}")
    say(f"{files[0]}: the {len(exported.kept):,} that are kept; {files[1]}: those removed, each with its reason")
    labels = shlex.join(results.label_names)
    say(f"d3m-ray run own reads it as train, --labels {labels}, beside files of val and test in its folder")
    if any(CUT_OFF in note for note in results.configuration.get("notes", ())):
        say(
            "caution: val and test of this experiment were cut off the same corpus, so they have no files: write these "
            "rows, whose example_id and split d3m_ray.read_examples has, beside it; of this file alone others "
            "would be cut off, and no number would compare",
            "yellow",
        )
    if results.configuration.get("protocol") == "thesis":
        say("caution: chosen ON TEST, by the protocol `thesis`: no test example can judge these data", "yellow")


def _found(store: Store, experiment: str, tell: Callable[[str], None]) -> str:
    """What the experiment shows, by all of its arms."""
    from d3m_ray.analysis.headline import headline  # and scipy with it, a second that other commands do not wait for

    return headline(read_results(store, [experiment], tell)[0]).sentence


def _as_csv(rows: pd.DataFrame) -> bytes:
    """As RFC 4180 says, lines ending in CR LF: only so does every reader keep a lone CR in a text."""
    return rows.to_csv(index=False, lineterminator="\r\n").encode()


def _as_json_lines(rows: pd.DataFrame) -> bytes:
    columns = {str(name): rows[name].tolist() for name in rows}
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return "".join(f"{json.dumps(record, ensure_ascii=False, allow_nan=False)}\n" for record in records).encode()


_ENCODERS: Mapping[str, Callable[[pd.DataFrame], bytes]] = {
    ".csv": _as_csv,
    ".jsonl": _as_json_lines,
    ".ndjson": _as_json_lines,
}
