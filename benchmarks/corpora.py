"""What the benchmarks measure on: a folder of train.csv, val.csv, test.csv and a model, as a trial sees them."""

from dataclasses import dataclass
from pathlib import Path

from d3m_ray.data.corpora import load_splits
from d3m_ray.data.hatexplain import Hatexplain
from d3m_ray.training.batching import TokenizedExamples, tokenize
from d3m_ray.training.model import load_pretrained
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.training.vocabulary import trim_vocabulary


@dataclass(frozen=True)
class Benchmark:
    """What to measure on."""

    data: Path
    """Folder of train.csv, val.csv and test.csv."""
    model: str
    """A transformers folder or hub name."""
    num_steps: int = 40
    """Batches that are timed, after a few that are not."""


def prepare(benchmark: Benchmark, trimmed: bool = True) -> tuple[PretrainedModel, TokenizedExamples]:
    """The base model and the tokenised train split, over the vocabulary entries in use or over all of them."""
    splits = load_splits(Hatexplain(), benchmark.data)
    pretrained, tokenizer = load_pretrained(benchmark.model, splits.train.texts)
    max_length = TrainingConfig().max_length
    tokens = {name: tokenize(examples, tokenizer, max_length) for name, examples in splits.by_name().items()}
    if trimmed:
        pretrained, tokens = trim_vocabulary(pretrained, tokens)
    return pretrained, tokens["train"]
