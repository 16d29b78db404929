"""Fine-tuning and attribution here beside the thesis's path and other libraries, by turns in one process.

Ratios come first: how many times as long as this package another takes for an example, the median over rounds with the
lowest and the highest, on one thread. All that was measured goes to a JSON file, with the machine and the versions.
"""

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from bergson_gradients import NOT_INSTALLED, bergson_pass
from corpora import Source, evenly, loaded, prepare, stock
from ekfac_speed import EkfacBenchmark, padded_pairwise
from ekfac_speed import prepare as ekfac_inputs
from scoring_speed import GRADIENTS, REFERENCE, passes_of
from training_speed import BATCH_SIZE, VARIANTS, Variant, batches_of, model_of, take_steps
from traker_speed import median_length
from turns import Side, by_turns, compared

from d3m_ray.attribution.ekfac import scores as ekfac
from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.attribution.inputs import Checkpoint
from d3m_ray.attribution.libraries import traker
from d3m_ray.attribution.shards import gradient_batches, make_shards
from d3m_ray.attribution.trak import scores as trak
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.pool import LocalPool
from d3m_ray.store.provenance import software
from d3m_ray.training.batching import Batch
from d3m_ray.training.fine_tuning import build_optimizer, predict
from d3m_ray.training.precision import resolved_precision
from d3m_ray.training.settings import TrainingConfig

OURS = "d3m_ray"
PEERS = ("traker", "kronfluence", "bergson")
TRAINED = (VARIANTS[0], VARIANTS[2], VARIANTS[-1])
NUM_PREDICTED = 1024
NUM_SCORED = 256
PartName = Literal["training", "predictions", "gradients", "trak", "ekfac"]


@dataclass(frozen=True)
class Comparison(Source):
    """What to measure on, and how often."""

    parts: tuple[PartName, ...] = ("training", "predictions", "gradients", "trak", "ekfac")
    """Parts, in the order in which they are measured."""
    num_rounds: int = 5
    """Of a part; one with a side that takes a minute has three at most."""
    out: Path = Path("results/peers.json")
    """Where all that was measured goes."""


def main(comparison: Comparison) -> None:
    """Measure each part, print its ratios as a row of a Markdown table, and write the file after each."""
    torch.set_num_threads(1)
    comparison.out.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"machine": machine(), "versions": versions(), "measured_on": measured_on(comparison)}
    print(json.dumps(found, indent=1))
    if "gradients" in comparison.parts and bergson_pass is None:
        print(NOT_INSTALLED)
    print(
        "\n| | beside | times as long as d3m_ray | its ms an example | d3m_ray's |\n|---|---|---|---|---|", flush=True
    )
    for name in comparison.parts:
        sides = PARTS[name](comparison)
        num_rounds = min(3, comparison.num_rounds) if any(side.is_slow for side in sides) else comparison.num_rounds
        found[name] = compared(sides, by_turns(sides, num_rounds))
        print("\n".join(rows(name, found[name])), flush=True)
        comparison.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """What this runs on."""
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "precision": resolved_precision("auto", "cpu"),
    }


def versions() -> dict[str, Any]:
    """Of this package, with its commit, of the libraries that results depend on, and of the peers that are there."""
    found: dict[str, Any] = {**software()}
    for peer in PEERS:
        try:
            found[peer] = version(peer)
        except PackageNotFoundError:
            found[peer] = None
    return found


def measured_on(source: Source) -> str:
    """The texts and the model in a line."""
    pretrained, train = prepare(source)
    num_parameters = sum(array.size for array in pretrained.weights.values())
    made_up = " (made up)" if source.data is None else ""
    return (
        f"{len(train)} train texts of {train.lengths.mean():.1f} tokens on average, {num_parameters / 1e6:.1f} M "
        f"parameters over the vocabulary in use{made_up}"
    )


def rows(part: str, found: dict[str, Any]) -> list[str]:
    """The rows of the table: one for each side but the last, which is this package's."""
    *others, ours = found.items()

    def of(side: dict[str, Any]) -> str:
        return f"{1e3 * side['seconds_an_example']['median']:.3g}"

    return [
        f"| {part} | {name} | **{side['times_as_long']['median']:.3g}** "
        f"({side['times_as_long']['low']:.3g} to {side['times_as_long']['high']:.3g}) | {of(side)} | {of(ours[1])} |"
        for name, side in others
    ]


def training(source: Source) -> list[Side]:
    """Steps of the optimiser: the thesis's, transformers in the fast precision without needless padding, and ours."""
    sides = []
    for variant in TRAINED:
        pretrained, train = prepare(source, variant.trimmed)
        model = model_of(pretrained, variant)
        batches = batches_of(train, variant)[: 2 if variant.padded else 25]
        steps = partial(take_steps, model, train, batches, variant, build_optimizer(model, TrainingConfig()))
        sides.append(Side(_name(variant), steps, BATCH_SIZE * len(batches)))
    return sides


def _name(variant: Variant) -> str:
    if variant is TRAINED[-1]:
        return OURS
    return "the thesis: float32, padded to 128" if variant.padded else "transformers: same precision, padded to longest"


def predictions(source: Source) -> list[Side]:
    """Margins of the same examples in the same batches: transformers' layers, and ours."""
    pretrained, train = prepare(source)
    few = evenly(train, NUM_PREDICTED)
    models = {"transformers: same precision and batches": stock(pretrained), OURS: loaded(pretrained)}
    return [Side(name, partial(predict, model, few, "auto"), len(few)) for name, model in models.items()]


def gradients(source: Source) -> list[Side]:
    """Projected gradients of each example, in the same batches; and the passes that no gradient can do without."""
    pretrained, train = prepare(source)
    few = evenly(train, NUM_SCORED)
    batches = [few.batch(shard[batch]) for shard in make_shards(few) for batch in gradient_batches(few.lengths[shard])]
    passes = passes_of(pretrained)
    ways: dict[str, Callable[[Batch], object]] = {}
    if bergson_pass is not None:
        ways["bergson: linear layers of the encoder, 16 x 16 of each"] = bergson_pass(pretrained)
    ways |= {REFERENCE: passes[REFERENCE], OURS: passes[GRADIENTS]}
    return [Side(name, partial(_through, way, batches), len(few)) for name, way in ways.items()]


def _through(one_pass: Callable[[Batch], object], batches: Sequence[Batch]) -> None:
    for batch in batches:
        one_pass(batch)


def trak_beside_traker(source: Source) -> list[Side]:
    """Projected gradients of texts of median length: the library's in the thesis's batches of 8, and ours."""
    pretrained, train = prepare(source)
    checkpoint, config = Checkpoint("pretrained", pretrained, pretrained.weights), TrakConfig()
    few = median_length(train, NUM_SCORED)
    of_library, step = few.take(np.arange(8)), trak.GradientStep(checkpoint, few, config, "auto")
    library = traker.TrakerStep(checkpoint, 0, of_library, config, "float32", "cpu")
    batch = [np.arange(len(of_library))]
    return [
        Side("traker: float32, batches of 8", partial(traker.featurize_shard, library, batch), len(of_library), True),
        Side(OURS, partial(trak.project_shard, step, np.arange(len(few))), len(few)),
    ]


def ekfac_beside_kronfluence(source: Source) -> list[Side]:
    """Whole scores, factors included: the library's pairs in texts padded to 128, and ours per group."""
    inputs = ekfac_inputs(EkfacBenchmark(source.data, source.model, source.size, num_train=64, num_queries=16))
    return [
        Side("kronfluence: float32, padded to 128, pairs", partial(padded_pairwise, inputs), len(inputs.train), True),
        Side(OURS, lambda: ekfac.score_groups(inputs, EkfacConfig(), LocalPool()), len(inputs.train), True),
    ]


PARTS: dict[PartName, Callable[[Source], list[Side]]] = {
    "training": training,
    "predictions": predictions,
    "gradients": gradients,
    "trak": trak_beside_traker,
    "ekfac": ekfac_beside_kronfluence,
}

if __name__ == "__main__":
    main(tyro.cli(Comparison, description=__doc__))
