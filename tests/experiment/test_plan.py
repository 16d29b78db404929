"""What an experiment asks for: numbers removed that fit the corpus, and a first line that says what was read."""

import dataclasses

import numpy as np
import pytest
from rich.console import Console

from d3m_ray.attribution.metagradient.settings import MetagradientConfig
from d3m_ray.data.corpora import load_splits
from d3m_ray.data.planted import Planted
from d3m_ray.data.toxigen import Toxigen
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.keys import alignment_key, group_scores_key, scores_key
from d3m_ray.experiment.plan import describe, numbers_that_fit, record_plan
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.story import prepare
from d3m_ray.selection.settings import AlignmentConfig
from d3m_ray.store.store import Store

CONFIG = ExperimentConfig(Planted(num_train=80, num_val=40, num_test=40), model="tiny", methods=("random",), seeds=(0,))


@pytest.mark.parametrize(
    ("numbers", "num_train", "fitting"),
    [
        ((0, 50, 100, 200), 400, (0, 50, 100, 200)),
        ((0, 50, 100, 200, 300, 700), 400, (0, 50, 100, 200)),
        ((0, 50, 100), 60, (0, "5%", "10%", "20%")),
        ((50, 700), 60, ("5%", "10%", "20%")),
        ((0,), 60, (0,)),
        ((0, "5%", "60%"), 60, (0, "5%")),
    ],
)
def test_numbers_that_nobody_chose_leave_half_of_train(numbers, num_train, fitting):
    assert numbers_that_fit(numbers, num_train) == fitting


def test_a_sweeps_own_numbers_give_way_to_a_small_corpus_and_it_is_said(tmp_path, capsys):
    config = dataclasses.replace(CONFIG, num_removed=(0, 20, 700))
    progress = Progress(Console(stderr=True, width=80))
    prepared = prepare(config, Store(tmp_path), progress, numbers_chosen=False)
    assert prepared.config.num_removed == (0, 20)
    assert "--num-removed is 0 20 here: the sweep's other numbers take more" in capsys.readouterr().err


def test_shares_are_stored_as_counts(tmp_path):
    store = Store(tmp_path)
    record_plan(prepare(dataclasses.replace(CONFIG, num_removed=("10%", 0, 8)), store, Progress()), Progress())
    (experiment,) = store.read_experiments().values()
    assert sorted(experiment.plan) == [("random", 0, 0), ("random", 8, 0)]


def test_what_reads_no_query_has_one_scores_key_and_each_target_its_alignment(tmp_path):
    config = dataclasses.replace(CONFIG, methods=("trak", "trak_auto", "loss"), num_removed=(5,))
    context = prepare(config, Store(tmp_path), Progress()).context
    targets = ("margin", "loss", "probability", "worst_loss")
    of_targets = {t: dataclasses.replace(config, alignment=AlignmentConfig(target=t)) for t in targets}
    sharper = AlignmentConfig(target="worst_loss", worst_loss_beta=20.0)
    of_targets["sharper"] = dataclasses.replace(config, alignment=sharper)

    def keys(key, name: str) -> dict[str, str]:
        return {target: key(name, config, context) for target, config in of_targets.items()}

    for name in ("trak", "trak_auto"):
        scores = keys(group_scores_key, name)
        assert scores["loss"] == scores["worst_loss"] == scores["sharper"]
        assert len({*scores.values()}) == 3, "margin, loss, probability"
    assert len({*keys(scores_key, "loss").values()}) == len({*keys(scores_key, "random").values()}) == 1
    for name in ("trak", "trak_auto", "loss"):
        assert len({*keys(alignment_key, name).values()}) == len(of_targets)


def test_what_was_read_is_told_in_one_line(tmp_path):
    for split in ("train", "val", "test"):
        rows = "".join(f"{split} {i},{i % 2},amber\n" for i in range(4))
        (tmp_path / f"{split}.csv").write_text(f"text,label,group\n{rows}{split} 0,0,amber\n")
    assert describe(load_splits(Toxigen(), tmp_path)) == (
        "toxigen: 4 train, 4 val, 4 test examples of 1 group; labels 0, 1, of which 1 is the positive one; left out: "
        "1 train row repeats another; 1 val row repeats another; 1 test row repeats another"
    )


def test_how_fits_are_paired_enters_their_key_where_something_is_removed(tmp_path):
    contexts = []
    for pairing, step_matched in (("common", False), ("common", True), ("independent", False), ("independent", True)):
        training = dataclasses.replace(CONFIG.training, pairing=pairing, step_matched=step_matched)
        config = dataclasses.replace(CONFIG, training=training, num_removed=(0, 2))
        contexts.append(prepare(config, Store(tmp_path), Progress()).context)
    of_the_full_split, without_two = (
        [context.fit_key(np.array(removed, dtype=np.int64), seed=0) for context in contexts] for removed in ([], [3, 5])
    )
    assert len(set(of_the_full_split)) == 1
    assert without_two[0] == without_two[1], "steps are matched under common pairing in any case"
    assert len({*of_the_full_split, *without_two}) == 4


def test_how_groups_are_weighed_enters_the_scores_of_their_weighed_sum_alone(tmp_path):
    plain = dataclasses.replace(CONFIG, num_removed=(0,))
    context = prepare(plain, Store(tmp_path), Progress()).context
    sharper = dataclasses.replace(plain, alignment=AlignmentConfig(beta=2.0))
    for method, per_group, is_weighed in (("tracin", False, True), ("tracin", True, False), ("trak", False, False)):
        settings = MetagradientConfig(per_group=per_group)
        keys = {
            scores_key(method, dataclasses.replace(config, metagradient=settings), context)
            for config in (plain, sharper)
        }
        assert len(keys) == 1 + is_weighed


@pytest.mark.parametrize("name", ["warmup_share", "adam_eps_root"])
def test_how_smoothly_is_trained_enters_the_fit_key_where_it_is_set(name, tmp_path):
    context = prepare(dataclasses.replace(CONFIG, num_removed=(5,)), Store(tmp_path), Progress()).context
    keys = {
        dataclasses.replace(context, training=dataclasses.replace(context.training, **{name: value})).fit_key(
            np.zeros(0, dtype=np.int64), 0
        )
        for value in (0.0, 0, 0.1)
    }
    assert len(keys) == 2
