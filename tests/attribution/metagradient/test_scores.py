"""Metagradients against retraining with other example weights, and TracIn against its formula; the same however cut."""

import dataclasses
from weakref import WeakSet

import numpy as np
import pytest
import torch

from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint, TrainingRun
from d3m_ray.attribution.metagradient import replay, reverse, scores
from d3m_ray.attribution.metagradient.replay import Replay, replay_steps, trainee_of
from d3m_ray.attribution.metagradient.settings import MetagradientConfig
from d3m_ray.attribution.registry import METHODS
from d3m_ray.attribution.targets import target_values
from d3m_ray.metrics.lds import linear_datamodeling_scores
from d3m_ray.pool import LocalPool
from d3m_ray.training.fine_tuning import Objective, fine_tune
from d3m_ray.training.model import build_classifier, load_weights, logits_of, margins_of
from d3m_ray.training.settings import TrainingConfig

CONFIG = TrainingConfig(
    num_epochs=2, learning_rate=1e-3, batch_size=4, precision="float32", final_model="last", max_grad_norm=0.4,
    adam_eps_root=1e-8, warmup_share=0.2, weight_decay=0.1,
)  # fmt: skip
PLAIN = dataclasses.replace(CONFIG, adam_eps_root=0, warmup_share=0)
SEED, GROUP_WEIGHTS = 3, np.array([0.7, 0.3])


def trained(pretrained, train, config, dtype=torch.float64, example_weights=None, kept=None):
    """A model fine-tuned with these example weights [N], the loss of a batch their weighed mean."""
    model = build_classifier(pretrained).to(dtype)
    objective = Objective()
    if example_weights is not None:
        weights = torch.from_numpy(example_weights).to(dtype)
        objective = Objective(batch_loss=lambda losses, at: (weights[at] * losses).sum() / weights[at].sum())
    fine_tune(model, pretrained, train, train, config, SEED, kept, objective)
    return model


def checkpoint_of(pretrained, train, config, dtype=torch.float64, kept=None):
    """The checkpoint of a fit, as the store would give it."""
    kept = np.arange(len(train)) if kept is None else kept
    model = trained(pretrained, train, config, dtype, kept=kept)
    weights = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    key = f"{config} {dtype} {kept} {len(train)}"  # a checkpoint's key names its content
    return Checkpoint(key, pretrained, weights, TrainingRun(config, SEED, config.num_epochs, train, kept))


def target_of(model, queries, of="margin"):
    """The sum of the groups' mean targets in `GROUP_WEIGHTS`."""
    batch = queries.batch(np.arange(len(queries)))
    with torch.no_grad():
        values = target_values(margins_of(logits_of(model.eval(), batch), batch.labels), of).double().numpy()
    return sum(weight * values[queries.groups == group].mean() for group, weight in enumerate(GROUP_WEIGHTS))


def aligned(inputs, method="metagradient", pool=None):
    """[N] the scores of the weighed groups."""
    score = METHODS[method].load().score_alignment
    return score(inputs, MetagradientConfig(), pool or LocalPool(), GROUP_WEIGHTS)[:, 0]


@pytest.fixture
def made(tiny_base, made_tokens):
    """Makes a base model with dropout, a train split and queries."""
    return lambda num_train=22: (tiny_base("bert", dropout=0.1), made_tokens("train", num_train), made_tokens("val", 9))


@pytest.fixture
def exact(made):
    """Makes what scores are made from in float64."""

    def make(config=CONFIG, of="margin", kept=None):
        pretrained, train, queries = made()
        checkpoint = checkpoint_of(pretrained, train, config, kept=kept)
        return AttributionInputs((checkpoint,), train.take(checkpoint.run.kept), queries, 2, "float64", query_target=of)

    return make


def difference(inputs, example, of="margin", size=1e-5, kept=None):
    """The derivative of the target by one example's weight: of retraining, by central differences of fourth order."""
    checkpoint, values = inputs.checkpoints[0], []
    for move in (1, -1, 2, -2):
        weights = np.ones(22)
        weights[example] += move * size
        model = trained(
            checkpoint.pretrained, checkpoint.run.train, checkpoint.run.config, example_weights=weights, kept=kept
        )
        values.append(target_of(model, inputs.queries, of))
    near, far = (values[0] - values[1]) / (2 * size), (values[2] - values[3]) / (4 * size)
    return (4 * near - far) / 3


# --- exact ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["margin", "loss"])
def test_a_score_is_the_slope_of_retraining_with_another_weight(of, exact):
    inputs = exact(of=of)
    found = aligned(inputs)
    for example in (7, 13):
        assert found[example] == pytest.approx(difference(inputs, example, of), rel=1e-6)
    norms = [taken.norm for taken in _taken(inputs)]
    assert min(norms) < CONFIG.max_grad_norm < max(norms)  # both with clipping and without


def test_it_is_the_slope_of_plain_adamw_too(exact):
    inputs = exact(PLAIN)
    found = aligned(inputs)
    assert found[12] == pytest.approx(difference(inputs, 12, size=1e-7), rel=1e-4)


def test_the_slope_of_a_run_without_some_examples_is_that_among_what_it_had(exact):
    kept = np.delete(np.arange(22), [2, 3, 11, 12, 20])
    inputs = exact(kept=kept)
    found = aligned(inputs)
    assert found.shape == (17,)
    assert found[5] == pytest.approx(difference(inputs, 7, kept=kept), rel=1e-6)  # two before it are gone


def test_a_weight_of_zero_is_the_fit_without_the_example(made):
    pretrained, train, queries = made()
    weights = np.ones(22)
    weights[5] = 0
    without = trained(pretrained, train, CONFIG, kept=np.delete(np.arange(22), 5))
    assert target_of(trained(pretrained, train, CONFIG, example_weights=weights), queries) == pytest.approx(
        target_of(without, queries), rel=1e-9
    )


def _trainee(inputs):
    targets = inputs.queries, inputs.precision, inputs.query_target, np.ones((1, len(inputs.queries)))
    return trainee_of(Replay(inputs.checkpoints, *targets, has_hessian=True), 0)


def _taken(inputs):
    return replay_steps(_trainee(inputs), None, scores.num_steps_to(inputs.checkpoints[0]))


def _adamw(gradients, config, rates, is_matrix):
    """What AdamW with clipping makes of a gradient [P] a step, as plain differentiable code, less the start."""
    moment = square = torch.zeros_like(gradients[0])
    moved = torch.zeros_like(gradients[0])
    for number, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        clipped = gradient * torch.clamp(config.max_grad_norm / (gradient.norm() + 1e-6), max=1.0)
        moment, square = 0.9 * moment + 0.1 * clipped, 0.999 * square + 0.001 * clipped**2
        root = (square / (1 - 0.999**number) + config.adam_eps_root).sqrt()
        moved = moved * (1 - rate * config.weight_decay * is_matrix) - rate / (1 - 0.9**number) * moment / (root + 1e-8)
    return moved


def test_tracin_is_the_slope_with_the_gradients_taken_as_given(exact):
    inputs = exact()
    all_taken, trainee = _taken(inputs), _trainee(inputs)
    gradients, per_example = [], []
    for taken in all_taken:
        trainee.load(taken.before)
        losses = trainee.losses(taken.step)
        of_each = [torch.autograd.grad(loss, trainee.parameters, retain_graph=True) for loss in losses]
        flat = torch.stack([torch.cat([part.flatten() for part in parts]) for parts in of_each])
        gradients.append(flat.mean(dim=0).requires_grad_())
        per_example.append(flat)
    is_matrix = torch.arange(gradients[0].numel()) < trainee.num_decayed
    rates = [trainee.constants(taken.step).learning_rate for taken in all_taken]
    trainee.load(all_taken[-1].after)
    model, queries = trainee.model.eval(), inputs.queries
    batch = queries.batch(np.arange(len(queries)))
    margins = margins_of(logits_of(model, batch), batch.labels)
    target = sum(weight * margins[queries.groups == group].mean() for group, weight in enumerate(GROUP_WEIGHTS))
    end = torch.cat([part.flatten() for part in torch.autograd.grad(target, trainee.parameters)])
    (_adamw(gradients, CONFIG, rates, is_matrix) @ end).backward()
    expected = np.zeros(22)
    for taken, gradient, of_each in zip(all_taken, gradients, per_example, strict=True):
        along = of_each @ gradient.grad
        expected[taken.step.positions] += ((along - along.mean()) / len(along)).numpy()
    np.testing.assert_allclose(aligned(inputs, "tracin"), expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


# --- the same however it is computed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["metagradient", "tracin"])
def test_neither_segments_nor_workers_change_a_bit(method, made, monkeypatch):
    pretrained, train, queries = made()
    configs = [dataclasses.replace(PLAIN, num_epochs=number) for number in (1, 2)]
    runs = [checkpoint_of(pretrained, train, config, torch.float32) for config in configs]
    inputs = AttributionInputs(tuple(runs), train, queries, 2, "float32")
    whole = aligned(inputs, method)

    class TwoWorkers(LocalPool):
        num_workers = 2

    np.testing.assert_array_equal(aligned(inputs, method, TwoWorkers()), whole)
    monkeypatch.setattr(scores, "segment_ends", lambda num_steps: [1, num_steps])
    np.testing.assert_array_equal(aligned(inputs, method), whole)
    singly = [aligned(dataclasses.replace(inputs, checkpoints=(run,)), method) for run in runs]
    np.testing.assert_allclose(np.mean(singly, axis=0), whole, rtol=1e-6)


def test_what_is_kept_at_once_is_two_square_roots_of_the_steps_and_one_trace(made, monkeypatch):
    pretrained, train, queries = made(16)
    checkpoint = checkpoint_of(pretrained, train, dataclasses.replace(PLAIN, num_epochs=4), torch.float32)
    states, all_traced, counts = WeakSet(), WeakSet(), []

    def listed(kind, among):
        def make(*fields):
            among.add(made := kind(*fields))
            return made

        return make

    def counted(*what):
        taken = replay_steps(*what)
        counts.append((len(states), len(all_traced)))
        return taken

    monkeypatch.setattr(replay, "State", listed(replay.State, states))
    monkeypatch.setattr(reverse, "Traced", listed(reverse.Traced, all_traced))
    monkeypatch.setattr(reverse, "replay_steps", counted)
    aligned(AttributionInputs((checkpoint,), train, queries, 2, "float32"), "tracin")
    assert len(counts) == 4  # segments, of as many steps
    assert max(num_states for num_states, _ in counts) <= 2 * 4
    assert [num_traced for _, num_traced in counts] == [1] * 4


def test_segments_are_as_many_as_steps_in_one():
    assert scores.segment_ends(117) == [11, 22, 33, 44, 55, 66, 77, 88, 99, 110, 117]
    assert scores.segment_ends(1) == [1]


def test_bfloat16_gives_the_scores_of_float32_nearly(made):
    pretrained, train, queries = made(24)
    found = {}
    for precision in ("float32", "bfloat16"):
        config = dataclasses.replace(PLAIN, precision=precision, learning_rate=3e-4)
        checkpoint = checkpoint_of(pretrained, train, config, torch.float32)
        found[precision] = aligned(AttributionInputs((checkpoint,), train, queries, 2, precision))
    assert np.corrcoef(found["float32"], found["bfloat16"])[0, 1] > 0.95


# --- right or refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [PLAIN, CONFIG])
@pytest.mark.parametrize("kept", [None, np.delete(np.arange(22), [2, 3, 11])])
def test_a_replay_ends_at_the_checkpoint_to_the_bit(config, kept, made):
    pretrained, train, queries = made()
    checkpoint = checkpoint_of(pretrained, train, config, torch.float32, kept)
    *_, last = _taken(AttributionInputs((checkpoint,), train, queries, 2, "float32"))
    model = build_classifier(pretrained)
    load_weights(model, checkpoint.weights)
    parameters = list(model.parameters())
    expected = [p for p in parameters if p.ndim >= 2] + [p for p in parameters if p.ndim < 2]
    np.testing.assert_array_equal(last.after.weights, torch.cat([p.detach().flatten() for p in expected]).numpy())


def test_a_run_stops_at_the_epoch_that_was_chosen(made):
    pretrained, train, _ = made()
    checkpoint = checkpoint_of(pretrained, train, dataclasses.replace(PLAIN, num_epochs=2), torch.float32)
    first = dataclasses.replace(checkpoint, run=dataclasses.replace(checkpoint.run, chosen_epoch=1))
    assert [scores.num_steps_to(c) for c in (checkpoint, first)] == [12, 6]


def test_a_checkpoint_of_another_run_is_refused(made):
    pretrained, train, queries = made()
    checkpoint = checkpoint_of(pretrained, train, PLAIN, torch.float32)
    inputs = AttributionInputs((checkpoint,), train, queries, 2, "float32")
    other = dataclasses.replace(checkpoint, key="other", run=dataclasses.replace(checkpoint.run, seed=4))
    with pytest.raises(ValueError, match="of the way away from it: run it where the base models were trained"):
        aligned(dataclasses.replace(inputs, checkpoints=(other,)))
    with pytest.raises(ValueError, match="say which run they came from"):
        aligned(dataclasses.replace(inputs, checkpoints=(dataclasses.replace(checkpoint, key="x", run=None),)))


def test_a_replay_that_rounds_otherwise_is_said(made):
    pretrained, train, queries = made()
    checkpoint = checkpoint_of(pretrained, train, PLAIN, torch.float32)
    moved = {name: value + np.float32(1e-6) * (value.ndim == 2) for name, value in checkpoint.weights.items()}
    said = []
    near = dataclasses.replace(checkpoint, key="near", weights=moved)
    aligned(AttributionInputs((near,), train, queries, 2, "float32", say=said.append))
    assert said[0].startswith("warning: metagradient replays the run")


def test_growth_is_recorded_warned_of_and_refused(made, monkeypatch):
    pretrained, train, queries = made()
    checkpoint = checkpoint_of(pretrained, train, dataclasses.replace(PLAIN, learning_rate=1e-2), torch.float32)
    said, findings = [], {}
    inputs = AttributionInputs(
        (checkpoint,), train, queries, 2, "float32", say=said.append, record=findings.__setitem__
    )
    aligned(inputs)
    (growth,), (change,) = findings["cotangent_growth"], findings["predicted_change"]
    assert growth > 1
    assert said[0].startswith(f"metagradient: going back through training, the derivatives grew {growth:.3g} times; ")
    assert said[0].endswith(f"changes the target by {change:.2g}, one standard deviation")
    for name, value in (("WARNED_GROWTH", growth), ("WARNED_CHANGE", change)):
        monkeypatch.setattr(scores, "WARNED_GROWTH", 2 * growth)
        monkeypatch.setattr(scores, "WARNED_CHANGE", 2 * change)
        scores._report("metagradient", inputs, [growth], [change])
        assert not said[-1].startswith("warning")
        monkeypatch.setattr(scores, name, value / 2)
        scores._report("metagradient", inputs, [growth], [change])
        assert said[-1].startswith("warning: metagradient's slopes hold for very small changes of the data only")
    with pytest.raises(FloatingPointError, match="which is no margin and no loss"):
        scores._report("metagradient", inputs, [1.0], [np.inf])
    monkeypatch.setattr(scores, "REFUSED_GROWTH", growth / 2)
    with pytest.raises(FloatingPointError, match=r"derivatives grew .* lower --learning-rate"):
        aligned(inputs)


def test_what_is_not_a_number_is_refused_in_whichever_run_it_is(made):
    pretrained, train, queries = made()
    checkpoint = checkpoint_of(pretrained, train, PLAIN, torch.float32)
    inputs = AttributionInputs((checkpoint, checkpoint), train, queries, 2, "float32")
    with pytest.raises(FloatingPointError, match="changes the target by nan"):
        scores._report("tracin", inputs, [1.0, 1.0], [0.1, np.nan])
    with pytest.raises(ValueError, match="ends nan of the way away"):
        scores._check_replays("tracin", inputs, [0.0, np.nan])


def test_derivatives_that_are_lost_in_the_second_of_two_runs_are_refused(made, monkeypatch):
    pretrained, train, queries = made()
    one = checkpoint_of(pretrained, train, PLAIN, torch.float32)
    two = dataclasses.replace(one, key=f"{one.key} again")
    trace = scores.trace_segment

    def losing(task, index, *others):
        traced = trace(task, index, *others)
        return dataclasses.replace(traced, growth=traced.growth * (np.nan if index == 1 else 1))

    class TwoWorkers(LocalPool):
        num_workers = 2

    monkeypatch.setattr(scores, "trace_segment", losing)
    with pytest.raises(FloatingPointError, match="derivatives grew nan times"):
        aligned(AttributionInputs((one, two), train, queries, 2, "float32"), "tracin", TwoWorkers())


def test_the_predicted_change_is_that_of_leaving_out_a_tenth_at_random():
    rng = np.random.default_rng(0)
    slopes = rng.normal(size=(200, 2)) * [1, 3]
    drawn = [slopes[rng.choice(200, 20, replace=False), 1].sum() for _ in range(4000)]
    assert scores.predicted_change(slopes) == pytest.approx(np.std(drawn), rel=0.05)


def test_dropout_that_is_drawn_otherwise_where_it_is_differentiated_twice_is_refused(made, monkeypatch):
    pretrained, train, queries = made()
    checkpoint = checkpoint_of(pretrained, train, PLAIN, torch.float32)
    inputs = AttributionInputs((checkpoint,), train, queries, 2, "float32")

    class AnotherMask(reverse.BatchGradient):
        def __init__(self, parameters, losses):
            super().__init__(parameters, losses)
            self.gradients = [2 * gradient for gradient in self.gradients]

    monkeypatch.setattr(reverse, "BatchGradient", AnotherMask)
    with pytest.raises(ValueError, match="draws other dropout where it is differentiated twice"):
        aligned(inputs)
    once = reverse.mean_gradient
    monkeypatch.setattr(reverse, "mean_gradient", lambda *what: [2 * gradient for gradient in once(*what)])
    with pytest.raises(ValueError, match="draws other dropout where it is differentiated twice or forward"):
        aligned(inputs, "tracin")


# --- what it is for ---------------------------------------------------------------------------------------------------


def _telling(tokens, share_wrong=0.0):
    """The examples, half of their tokens telling the label, odd ones label 1; a share of the labels is wrong."""
    rng = np.random.default_rng(len(tokens))
    labels = np.repeat(tokens.labels, tokens.lengths)
    paired = 5 + 2 * ((tokens.flat_ids - 5) // 2) + labels
    ids = np.where(rng.random(len(labels)) < 0.5, paired, tokens.flat_ids).clip(5, 99).astype(np.int32)
    is_wrong = rng.random(len(tokens)) < share_wrong
    return dataclasses.replace(tokens, flat_ids=ids, labels=np.where(is_wrong, 1 - tokens.labels, tokens.labels))


@pytest.mark.slow
def test_it_predicts_retraining_without_a_tenth_under_the_same_seed(tiny_base, made_tokens):
    pretrained, queries = tiny_base("bert", dropout=0.1), _telling(made_tokens("val", 100, seed=1))
    single = {"precision": "float32", "final_model": "last"}
    pretraining = TrainingConfig(num_epochs=4, learning_rate=3e-3, **single)
    model = trained(pretrained, _telling(made_tokens("train", 600, seed=2)), pretraining, torch.float32)
    weights = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    pretrained = dataclasses.replace(pretrained, weights=weights)
    train = _telling(made_tokens("train", 160, seed=3), share_wrong=0.2)
    config = TrainingConfig(num_epochs=2, learning_rate=5e-4, batch_size=16, adam_eps_root=1e-8, **single)
    inputs = AttributionInputs((checkpoint_of(pretrained, train, config, torch.float32),), train, queries, 2, "float32")
    kept = np.ones((20, 160), dtype=bool)
    for number, row in enumerate(kept):
        row[np.random.default_rng(number).choice(160, 16, replace=False)] = False
    retrained = [trained(pretrained, train, config, torch.float32, kept=np.flatnonzero(row)) for row in kept]
    outputs = np.array([target_of(model, queries) for model in retrained])
    assert linear_datamodeling_scores(aligned(inputs)[:, None], kept, outputs[:, None]).mean > 0.8
