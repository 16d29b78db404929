"""The arms that train otherwise: each against its algorithm written out, and all of them exact under their seed."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from d3m_ray.selection.arms import ARMS
from d3m_ray.training import last_layer, recipes
from d3m_ray.training.fine_tuning import fine_tune, predict
from d3m_ray.training.last_layer import layer_inputs, layer_to_refit, refit_last_layer
from d3m_ray.training.model import build_classifier, load_weights
from d3m_ray.training.recipes import CellWeightedLoss, FitInputs, balanced_weights
from d3m_ray.training.registry import ERM, RECIPES
from d3m_ray.training.settings import RobustConfig, TrainingConfig

CONFIG = TrainingConfig(num_epochs=2, learning_rate=1e-3, batch_size=4, precision="float32", final_model="last")
ROBUST = RobustConfig()


def _trained(name, pretrained, train, val, config=CONFIG, robust=ROBUST, seed=3):
    model = build_classifier(pretrained)
    fit = RECIPES[name].load()(FitInputs(model, pretrained, train, np.arange(len(train)), val, config, seed, robust))
    return model, fit


def _weights(model) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())


def test_every_arm_names_an_objective():
    assert {arm.recipe for arm in ARMS.values()} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_seed_decides_the_model_to_the_bit(name, tiny_base, made_tokens):
    pretrained, train, val = tiny_base("bert", dropout=0.1), made_tokens("train", 22), made_tokens("val", 12)
    models = [_trained(name, pretrained, train, val, seed=seed)[0] for seed in (3, 3, 4)]
    weights = [_weights(model) for model in models]
    assert weights[0] == weights[1] != weights[2]
    assert np.isfinite(predict(models[0], val, "float32").margins).all()


@pytest.mark.parametrize("name", [name for name in RECIPES if name != ERM])
def test_no_objective_is_the_plain_one(name, tiny_base, made_tokens):
    pretrained, train, val = tiny_base("bert"), made_tokens("train", 22), made_tokens("val", 12)
    assert _weights(_trained(name, pretrained, train, val)[0]) != _weights(_trained(ERM, pretrained, train, val)[0])


def test_erm_is_plain_fine_tuning(tiny_base, made_tokens):
    pretrained, train, val = tiny_base("bert", dropout=0.1), made_tokens("train", 22), made_tokens("val", 9)
    plain = build_classifier(pretrained)
    fine_tune(plain, pretrained, train, val, CONFIG, seed=3)
    assert _weights(_trained(ERM, pretrained, train, val)[0]) == _weights(plain)


def test_balanced_weights_give_every_cell_the_same_share():
    cells = np.array([5, 0, 0, 5, 5, 5, 2])
    weights = balanced_weights(cells, np.arange(7))
    np.testing.assert_allclose([weights[cells == cell].sum() for cell in (0, 2, 5)], 1)
    assert len(np.unique(weights[cells == 5])) == 1


# --- group DRO --------------------------------------------------------------------------------------------------------


def _group_dro_by_hand(batches, cells, step_size):
    """Algorithm 1 of Sagawa et al. 2020 over given batches of (losses, positions): the loss of each."""
    names = sorted(set(cells))
    q = np.full(len(names), 1 / len(names))
    steps = []
    for losses, positions in batches:
        of_cell = [losses[cells[positions] == name] for name in names]
        means = np.array([of.mean() if len(of) else 0.0 for of in of_cell])
        q = q * np.exp(step_size * means)
        q = q / q.sum()
        steps.append((q @ means, q.copy()))
    return steps


def test_group_dro_is_algorithm_1():
    rng = np.random.default_rng(0)
    cells = rng.choice([0, 1, 3, 6], size=30)
    batches = [(rng.exponential(size=8), rng.choice(30, size=8, replace=False)) for _ in range(5)]
    batches.append((np.array([2.0, 3.0]), np.flatnonzero(cells == 3)[:2]))  # a batch that lacks cells
    loss = CellWeightedLoss(cells, np.arange(30), step_size=0.3)
    for (losses, positions), (expected, q) in zip(batches, _group_dro_by_hand(batches, cells, 0.3), strict=True):
        computed = loss(torch.tensor(losses), positions)
        assert float(computed) == pytest.approx(expected)
        np.testing.assert_allclose(softmax(loss.log_weights.numpy()), q)


def test_group_dro_goes_down_on_each_cells_mean_by_its_weight():
    cells = np.array([0, 0, 1])
    losses = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64, requires_grad=True)
    loss = CellWeightedLoss(cells, np.arange(3), step_size=1.0)
    loss(losses, np.arange(3)).backward()
    q = softmax([2.0, 5.0])  # after the step, and no gradient flows through it
    np.testing.assert_allclose(losses.grad.numpy(), [q[0] / 2, q[0] / 2, q[1]])


def test_group_dro_survives_a_loss_that_would_overflow():
    loss = CellWeightedLoss(np.array([0, 1]), np.arange(2), step_size=1.0)
    for _ in range(5):
        computed = loss(torch.tensor([1e4, 1.0]), np.arange(2))
    assert float(computed) == pytest.approx(1e4)


# --- just train twice -------------------------------------------------------------------------------------------------


@pytest.fixture
def trained_on(monkeypatch):
    """The (train examples, configuration) of every call of fine_tune."""
    calls = []

    def recording(model, pretrained, train, val, config, *rest):
        calls.append((train, config))
        return fine_tune(model, pretrained, train, val, config, *rest)

    monkeypatch.setattr(recipes, "fine_tune", recording)
    return calls


def test_jtt_trains_again_on_errors_as_often_as_asked(tiny_base, made_tokens, trained_on):
    pretrained, train, val = tiny_base("bert"), made_tokens("train", 22), made_tokens("val", 9)
    config = dataclasses.replace(CONFIG, final_model="val_accuracy")
    _, fit = _trained("jtt", pretrained, train, val, config, RobustConfig(jtt_first_epochs=1, jtt_upweight=4))

    first = build_classifier(pretrained)
    identification = dataclasses.replace(config, num_epochs=1, final_model="last")
    fine_tune(first, pretrained, train, val, identification, 3)
    is_wrong = predict(first, train, "float32").margins <= 0
    assert 0 < is_wrong.sum() < 22
    (of_first, config_of_first), (of_second, config_of_second) = trained_on
    assert (len(of_first), config_of_first, config_of_second) == (22, identification, config)
    assert len(of_second) == 22 + 3 * is_wrong.sum()
    rows = [of_second.flat_ids[a:b].tolist() for a, b in zip(of_second.offsets, of_second.offsets[1:], strict=False)]
    for index in range(22):
        row = train.flat_ids[train.offsets[index] : train.offsets[index + 1]].tolist()
        assert rows.count(row) == (4 if is_wrong[index] else 1)
    assert fit.num_steps == 6 + 2 * -(-len(of_second) // 4)


def test_jtt_without_upweighting_is_the_plain_fit(tiny_base, made_tokens):
    pretrained, train, val = tiny_base("bert"), made_tokens("train", 22), made_tokens("val", 9)
    model, _ = _trained("jtt", pretrained, train, val, robust=RobustConfig(jtt_upweight=1))
    assert _weights(model) == _weights(_trained(ERM, pretrained, train, val)[0])


# --- deep feature reweighting -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["val", "train"])
def test_dfr_changes_the_last_layer_alone(split, tiny_base, made_tokens, architecture):
    pretrained, train, val = tiny_base(architecture), made_tokens("train", 22), made_tokens("val", 12)
    refitted, _ = _trained("dfr", pretrained, train, val, robust=RobustConfig(dfr_data=split))
    plain, _ = _trained(ERM, pretrained, train, val)
    moved = [name for name, value in plain.state_dict().items() if not torch.equal(value, refitted.state_dict()[name])]
    names = {id(module): name for name, module in plain.named_modules()}
    last = names[id(layer_to_refit(plain, val))]
    assert moved == [f"{last}.weight", f"{last}.bias"]


def test_dfr_is_the_logistic_regression_of_balanced_cells(tiny_base, made_tokens, monkeypatch):
    pretrained, examples = tiny_base("bert"), made_tokens("val", 40)
    model = build_classifier(pretrained)
    load_weights(model, pretrained.weights)
    layer = layer_to_refit(model, examples)
    features = layer_inputs(model, layer, examples, "float32")
    assert model.bert.encoder.num_unpadded > 2, "padding is left out, besides the two times that it was tried"
    removed = np.array([0, 1, 7])  # whatever the subset is
    monkeypatch.setattr(last_layer, "balancing", lambda cells, seed, stream: removed)
    refit_last_layer(model, layer, examples, "float32", seed=0, inverse_l2=0.7)

    kept = np.delete(np.arange(40), removed)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    regression = LogisticRegression(C=0.7, max_iter=10_000).fit(standard[kept], examples.labels[kept])
    signs = 2 * examples.labels - 1
    expected = signs * regression.decision_function(standard)
    np.testing.assert_allclose(predict(model, examples, "float32").margins, expected, rtol=1e-3, atol=1e-3)


def test_dfr_of_three_labels_is_the_multinomial_regression(tiny_base, made_tokens, monkeypatch):
    pretrained, examples = tiny_base("bert", num_labels=3), made_tokens("val", 45, num_labels=3)
    model = build_classifier(pretrained)
    load_weights(model, pretrained.weights)
    layer = layer_to_refit(model, examples)
    features = layer_inputs(model, layer, examples, "float32")
    monkeypatch.setattr(last_layer, "balancing", lambda cells, seed, stream: np.zeros(0, dtype=np.int64))
    refit_last_layer(model, layer, examples, "float32", seed=0, inverse_l2=0.7)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    regression = LogisticRegression(C=0.7, max_iter=10_000).fit(standard, examples.labels)
    expected = -regression.predict_log_proba(standard)[np.arange(45), examples.labels]
    np.testing.assert_allclose(predict(model, examples, "float32").losses, expected, rtol=1e-3, atol=1e-3)


def test_dfr_averages_over_balanced_subsets(tiny_base, made_tokens, monkeypatch):
    pretrained = tiny_base("bert")
    examples = made_tokens("val", 40)
    skewed = examples.take(np.flatnonzero((examples.cells != 0) | (np.arange(40) % 3 == 0)))
    seen = []
    real = last_layer.balancing

    def recording(cells, seed, stream):
        seen.append(np.delete(np.arange(len(cells)), real(cells, seed, stream)))
        return real(cells, seed, stream)

    monkeypatch.setattr(last_layer, "balancing", recording)
    model = build_classifier(pretrained)
    refit_last_layer(model, layer_to_refit(model, skewed), skewed, "float32", seed=0, inverse_l2=1.0)
    assert len({subset.tobytes() for subset in seen}) == last_layer.NUM_SUBSETS
    for subset in seen:
        assert len(set(np.bincount(skewed.cells[subset], minlength=4))) == 1


def test_dfr_takes_both_labels(tiny_base, made_tokens):
    pretrained, train, val = tiny_base("bert"), made_tokens("train", 22), made_tokens("val", 12)
    one_label = val.take(np.flatnonzero(val.labels == 1))
    with pytest.raises(ValueError, match=r"val has \[1\]: name the other of val and train by --dfr-data"):
        _trained("dfr", pretrained, train, one_label)
