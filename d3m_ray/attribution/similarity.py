"""Similarity as attribution: BM25 over token ids and cosine of embeddings, signed by label agreement.

Shapes: N train examples, Q query examples, G groups, n examples of a shard, V indexed tokens, H hidden width.

Similarity is positive and says nothing of the label, so it is signed: a train example that resembles a query raises the
query's margin where the two labels agree, and lowers it where they differ. A similarity has no gradient that another
target than the margin could change; it weighs each query by the slope that its gradient would have (`targets`), the
mean over the checkpoints: under `loss` a query that the models answer well counts for little.
"""

from dataclasses import dataclass

import numpy as np
import torch
from bm25s import BM25

from d3m_ray.attribution.forward import FORWARD_TOKENS, ForwardStep, forward_pass, query_slopes
from d3m_ray.attribution.head_states import HeadStates
from d3m_ray.attribution.inputs import AttributionInputs
from d3m_ray.attribution.query_sets import group_scores
from d3m_ray.attribution.scorers import Scorers
from d3m_ray.attribution.shards import make_shards
from d3m_ray.attribution.worker import loaded_model
from d3m_ray.errors import InputError
from d3m_ray.pool import WorkerPool
from d3m_ray.training.batching import TokenizedExamples, budget_batches
from d3m_ray.training.budgets import tokens_at_once
from d3m_ray.training.precision import at_least_float32, autocast


@dataclass(frozen=True, eq=False)
class Bm25Step:
    """What a shard of queries needs besides its positions."""

    index: BM25
    numbers: np.ndarray
    """[largest token id + 1] int64: a token's number in the index, -1 where it is not indexed."""
    train_labels: np.ndarray
    queries: TokenizedExamples
    slopes: np.ndarray
    """[Q] float32: what each query's similarities are multiplied by."""
    num_groups: int


def bm25_groups(inputs: AttributionInputs, settings: None, pool: WorkerPool) -> np.ndarray:
    """[N, G] float32: the mean over each group's queries of `bm25_queries`."""
    shards = make_shards(inputs.queries)
    sums = sum(pool.map("bm25 scores", sum_bm25_shard, pool.put(_bm25_step(inputs, pool)), shards))
    return (sums / np.bincount(inputs.queries.groups, minlength=inputs.num_groups)).astype(np.float32)


def bm25_queries(inputs: AttributionInputs, settings: None, pool: WorkerPool) -> np.ndarray:
    """[N, Q] float32: BM25 of each train example, as a document, for each query; negative where the labels differ.

    The variant is Lucene's with k1 = 1.5 and b = 0.75 (Lù 2024, arXiv 2407.03618). Words are the ids of the model's own
    tokens, as often as they stand in a text. Tokens that every train example has, the special ones above all, tell no
    two examples apart and are left out of documents and queries. Checkpoints enter by the slopes of the target only,
    those of the margin being 1. Raises InputError where no other token is left.
    """
    shards = make_shards(inputs.queries)
    columns = list(pool.map("bm25 scores", score_bm25_shard, pool.put(_bm25_step(inputs, pool)), shards))
    return np.concatenate(columns, axis=1)[:, np.argsort(np.concatenate(shards))]


def _bm25_step(inputs: AttributionInputs, pool: WorkerPool) -> Bm25Step:
    """Index the train examples. The index is small, a number per example and distinct token, so it is made once."""
    train = inputs.train
    numbers = np.full(max(train.flat_ids.max(), inputs.queries.flat_ids.max()) + 1, -1, dtype=np.int64)
    texts = np.repeat(np.arange(len(train)), train.lengths)
    of_each_text = np.unique(np.stack([texts, train.flat_ids]), axis=1)[1]
    tokens, num_texts = np.unique(of_each_text, return_counts=True)
    telling = tokens[num_texts < len(train)]
    if not len(telling):
        raise InputError("bm25 compares tokens that not every train example has; here all train examples share all")
    numbers[telling] = np.arange(len(telling))
    documents = [row.tolist() for row in _indexed_rows(train, numbers)]
    index = BM25(method="lucene")
    vocabulary = {number: number for number in range(len(telling))}
    index.index((documents, vocabulary), create_empty_token=False, show_progress=False)
    slopes = np.mean([query_slopes("bm25 slopes", inputs, each, pool) for each in inputs.checkpoints], axis=0)
    return Bm25Step(index, numbers, train.labels, inputs.queries, slopes.astype(np.float32), inputs.num_groups)


def _indexed_rows(examples: TokenizedExamples, numbers: np.ndarray) -> list[np.ndarray]:
    """The indexed tokens of each example by their numbers, in order, repeats included."""
    rows = np.split(numbers[examples.flat_ids], examples.offsets[1:-1])
    return [row[row >= 0] for row in rows]


def score_bm25_shard(step: Bm25Step, positions: np.ndarray) -> np.ndarray:
    """[N, n] float32 signed scores of every train example for the queries at these positions."""
    queries = step.queries.take(positions)
    scores = [step.index.get_scores_from_ids(row) for row in _indexed_rows(queries, step.numbers)]
    agree = step.train_labels[:, None] == queries.labels
    return np.where(agree, 1, -1).astype(np.float32) * np.stack(scores, axis=1) * step.slopes[positions]


def sum_bm25_shard(step: Bm25Step, positions: np.ndarray) -> np.ndarray:
    """[N, G] float64 sums of the shard's scores over each group's queries."""
    members = step.queries.groups[positions][:, None] == np.arange(step.num_groups)
    return score_bm25_shard(step, positions).astype(np.float64) @ members.astype(np.float64)


def embedding_groups(inputs: AttributionInputs, settings: None, pool: WorkerPool) -> np.ndarray:
    """[N, G] float32: the mean over each group's queries of `embedding_queries`."""
    return _embedding_scores(inputs, pool, group_means=True)


def embedding_queries(inputs: AttributionInputs, settings: None, pool: WorkerPool) -> np.ndarray:
    """[N, Q] float32 cosines of what the classifier reads of the last hidden states; negative where the labels differ.

    That is the first token's for classifiers of BERT's kind ([CLS]), the last one's for those of GPT's. The mean over
    the checkpoints. Raises ValueError where the classifier reads none of them.
    """
    return _embedding_scores(inputs, pool, group_means=False)


def _embedding_scores(inputs: AttributionInputs, pool: WorkerPool, group_means: bool) -> np.ndarray:
    """+- f'(m_q) h_i . h_q by label agreement: linear in h_q, so a group's is that of its queries' signed mean."""
    total = np.zeros(())
    for number, checkpoint in enumerate(inputs.checkpoints, start=1):
        label = f"embeddings, checkpoint {number} of {len(inputs.checkpoints)}"
        train, queries = (
            forward_pass(label, embed_shard, inputs, checkpoint, examples, pool)
            for examples in (inputs.train, inputs.queries)
        )
        queries = queries * query_slopes(label, inputs, checkpoint, pool)[:, None]
        scores = np.zeros((len(train), inputs.num_groups if group_means else len(queries)))
        for name in np.unique(inputs.train.labels):
            of_label = inputs.train.labels == name
            signed = (np.where(inputs.queries.labels == name, 1, -1)[:, None] * queries).T
            targets = group_scores(signed, inputs.queries.groups, inputs.num_groups) if group_means else signed
            scores[of_label] = train[of_label] @ targets
        total = total + scores
    return (total / len(inputs.checkpoints)).astype(np.float32)


def embed_shard(step: ForwardStep, positions: np.ndarray) -> np.ndarray:
    """[n, H] last hidden states that the head reads, of length 1: float32, or float64 where the precision is."""
    model, states_of = loaded_model(step.checkpoint, "embedding", step.precision, HeadStates)
    rows: list[torch.Tensor] = []
    batches = list(budget_batches(step.examples.lengths[positions], tokens_at_once(model, FORWARD_TOKENS)))
    for batch in batches:
        with autocast(model.device, step.precision):
            states = states_of(step.examples.batch(positions[batch], model.device))
        rows.append(torch.nn.functional.normalize(at_least_float32(states), dim=1))
    return torch.cat(rows).cpu().numpy()[np.argsort(np.concatenate(batches))]


BM25_SCORERS = Scorers(bm25_groups, bm25_queries)
EMBEDDING_SCORERS = Scorers(embedding_groups, embedding_queries)
