"""BM25 against its formula written out, cosines against one-example passes; signs."""

import dataclasses
import math
import pickle
from collections import Counter

import numpy as np
import pytest
import torch

from d3m_ray.attribution import similarity
from d3m_ray.attribution.head_states import HeadStates
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
from d3m_ray.errors import InputError
from d3m_ray.pool import LocalPool
from d3m_ray.training.batching import TokenizedExamples
from d3m_ray.training.model import build_classifier, load_weights

START, END = 1, 2


def tokens_of(split: str, rows: list[list[int]], labels: list[int], groups: list[int]) -> TokenizedExamples:
    return TokenizedExamples(
        split=split,
        flat_ids=np.concatenate(rows).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64),
        labels=np.array(labels),
        groups=np.array(groups),
        pad_id=0,
    )


@pytest.fixture
def make_inputs(tiny_base, made_tokens):
    def make(architecture: str = "bert", precision: str = "float32", num_checkpoints: int = 2) -> AttributionInputs:
        bases = [tiny_base(architecture, seed=seed) for seed in range(num_checkpoints)]
        checkpoints = tuple(
            Checkpoint(f"{architecture} similarity {seed}", pretrained, pretrained.weights)
            for seed, pretrained in enumerate(bases)
        )
        return AttributionInputs(checkpoints, made_tokens("train", 40), made_tokens("val", 14, 3), 3, precision)

    return make


# --- BM25 -------------------------------------------------------------------------------------------------------------

DOCUMENTS = [[7, 8, 7], [8, 9], [9, 9, 9, 10], [7]]
QUERIES = [[7, 9, 9], [10, 55], [8], [60]]  # 55 and 60 stand in no document
TRAIN_LABELS, QUERY_LABELS = [0, 1, 1, 0], [0, 1, 1, 0]


def lucene(document: list[int], query: list[int], documents: list[list[int]]) -> float:
    """sum over the query's words of idf * tf / (tf + k1 (1 - b + b |d| / mean |d|))."""
    mean_length = sum(map(len, documents)) / len(documents)
    counts = Counter(document)
    score = 0.0
    for word in query:
        frequency = sum(word in other for other in documents)
        idf = math.log(1 + (len(documents) - frequency + 0.5) / (frequency + 0.5))
        length = 1 - 0.75 + 0.75 * len(document) / mean_length
        score += idf * counts[word] / (counts[word] + 1.5 * length)
    return score


@pytest.fixture
def worded(make_inputs) -> AttributionInputs:
    """Inputs of a few known words; every text begins and ends with the same token."""
    train = tokens_of("train", [[START, *row, END] for row in DOCUMENTS], TRAIN_LABELS, [0, 0, 0, 0])
    queries = tokens_of("val", [[START, *row, END] for row in QUERIES], QUERY_LABELS, [0, 1, 0, 1])
    return dataclasses.replace(make_inputs(), train=train, queries=queries, num_groups=2)


def test_bm25_is_lucenes_formula_signed_by_agreement(worded):
    expected = [
        [
            lucene(document, query, DOCUMENTS) * (1 if own == other else -1)
            for query, other in zip(QUERIES, QUERY_LABELS, strict=True)
        ]
        for document, own in zip(DOCUMENTS, TRAIN_LABELS, strict=True)
    ]
    scores = similarity.bm25_queries(worded, None, LocalPool())
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-9)
    assert scores.dtype == np.float32
    assert scores[0, 0] > 0 > scores[0, 2], "labels 0 and 0 agree, 0 and 1 differ"
    assert not scores[:, 3].any(), "a query of unknown words"


def test_tokens_of_every_train_example_carry_nothing(worded):
    """They would change lengths, and so all scores."""
    bare = dataclasses.replace(
        worded,
        train=tokens_of("train", DOCUMENTS, TRAIN_LABELS, [0, 0, 0, 0]),
        queries=tokens_of("val", QUERIES, QUERY_LABELS, [0, 1, 0, 1]),
    )
    np.testing.assert_array_equal(
        similarity.bm25_queries(worded, None, LocalPool()), similarity.bm25_queries(bare, None, LocalPool())
    )
    one = tokens_of("train", [[START, 5, END]] * 3, [0, 1, 0], [0, 0, 0])
    with pytest.raises(InputError, match="bm25 compares tokens that not every train example has"):
        similarity.bm25_queries(dataclasses.replace(worded, train=one), None, LocalPool())


def test_a_text_of_nothing_else_scores_zero(worded):
    rows = [[START, *row, END] for row in (*DOCUMENTS, [])]
    train = tokens_of("train", rows, [*TRAIN_LABELS, 0], [0] * 5)
    scores = similarity.bm25_queries(dataclasses.replace(worded, train=train), None, LocalPool())
    assert not scores[4].any()
    assert scores[0, 0] > 0


def test_bm25_travels_to_another_process(worded):
    task = pickle.loads(pickle.dumps(similarity._bm25_step(worded, LocalPool())))
    scores = similarity.score_bm25_shard(task, np.array([2, 0]))
    np.testing.assert_array_equal(scores, similarity.bm25_queries(worded, None, LocalPool())[:, [2, 0]])


# --- embeddings -------------------------------------------------------------------------------------------------------


def by_definition(inputs: AttributionInputs) -> np.ndarray:
    """[N, Q] by one-example passes in float64, without padding."""
    matrices = []
    for checkpoint in inputs.checkpoints:
        model = build_classifier(checkpoint.pretrained).eval().double()
        load_weights(model, checkpoint.weights)
        states = []
        for examples in (inputs.train, inputs.queries):
            rows = [examples.batch(np.array([i])) for i in range(len(examples))]
            with torch.no_grad():
                hidden = [
                    model(row.input_ids, row.attention_mask, output_hidden_states=True).hidden_states[-1][0, 0]
                    for row in rows
                ]
            states.append(torch.stack(hidden))
        matrices.append(torch.cosine_similarity(states[0][:, None], states[1][None], dim=2).numpy())
    agree = inputs.train.labels[:, None] == inputs.queries.labels
    return np.where(agree, 1, -1) * np.mean(matrices, axis=0)


def test_embedding_scores_are_signed_cosines_of_the_first_token(make_inputs, architecture):
    inputs = make_inputs(architecture, "float64")
    scores = similarity.embedding_queries(inputs, None, LocalPool())
    np.testing.assert_allclose(scores, by_definition(inputs), atol=1e-7)
    assert scores.dtype == np.float32
    rough = similarity.embedding_queries(dataclasses.replace(inputs, precision="float32"), None, LocalPool())
    np.testing.assert_allclose(rough, scores, atol=1e-5)


@pytest.mark.parametrize(("architecture", "place"), [("gpt2", -1), ("llama", -1), ("bart", -1), ("albert", 0)])
def test_embeddings_are_of_the_token_that_the_head_reads(architecture, place, tiny_base, made_tokens):
    pretrained, tokens = tiny_base(architecture), made_tokens(num_examples=5, end=2)
    model = build_classifier(pretrained).eval()
    load_weights(model, pretrained.weights)
    expected = []
    for i in range(5):
        row = tokens.batch(np.array([i]))
        with torch.no_grad():
            expected.append(
                model.base_model(input_ids=row.input_ids, attention_mask=row.attention_mask).last_hidden_state[0, place]
            )
    states = HeadStates(model)(tokens.batch(np.arange(5)))
    torch.testing.assert_close(states, torch.stack(expected))


def test_embeddings_are_means_where_the_head_takes_the_mean(tiny_base, made_tokens):
    pretrained, tokens = tiny_base("modernbert"), made_tokens(num_examples=5)
    pretrained = dataclasses.replace(pretrained, config={**pretrained.config, "classifier_pooling": "mean"})
    model = build_classifier(pretrained).eval()
    load_weights(model, pretrained.weights)
    states = HeadStates(model)(tokens.batch(np.arange(5)))
    for i in range(5):
        row = tokens.batch(np.array([i]))
        with torch.no_grad():
            hidden = model.base_model(input_ids=row.input_ids, attention_mask=row.attention_mask).last_hidden_state[0]
        torch.testing.assert_close(states[i], hidden.mean(dim=0), rtol=1e-4, atol=1e-5)


def test_embeddings_have_length_one_in_the_precision_asked_for(make_inputs):
    inputs = make_inputs()
    for precision, dtype, rounding in (("float64", np.float64, 1e-12), ("bfloat16", np.float32, 1e-5)):
        task = similarity.ForwardStep(inputs.checkpoints[0], inputs.train, precision)
        states = similarity.embed_shard(task, np.arange(9))
        assert states.dtype == dtype
        np.testing.assert_allclose(np.linalg.norm(states, axis=1), 1, atol=rounding)


# --- both -------------------------------------------------------------------------------------------------------------


def test_embeddings_of_many_labels_are_signed_by_agreement(make_inputs):
    inputs = make_inputs("bert", "float64")
    three = dataclasses.replace(
        inputs, train=dataclasses.replace(inputs.train, labels=np.arange(len(inputs.train)) % 3)
    )
    scores = similarity.embedding_queries(three, None, LocalPool())
    np.testing.assert_allclose(scores, by_definition(three), atol=1e-7)


@pytest.mark.parametrize("of_queries", [similarity.bm25_queries, similarity.embedding_queries])
def test_another_label_turns_the_sign_alone(make_inputs, of_queries):
    inputs = make_inputs()
    turned = dataclasses.replace(inputs, train=dataclasses.replace(inputs.train, labels=1 - inputs.train.labels))
    np.testing.assert_array_equal(of_queries(turned, None, LocalPool()), -of_queries(inputs, None, LocalPool()))
