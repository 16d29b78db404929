"""What a metagradient and TracIn cost beside the fit that they replay: seconds of a core, in fits, and peak memory."""

import dataclasses
import multiprocessing
import resource
import time
from typing import Any

import numpy as np
import torch
import tyro
from corpora import Benchmark, prepare

from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint, TrainingRun
from d3m_ray.attribution.metagradient.settings import MetagradientConfig
from d3m_ray.attribution.registry import METHODS
from d3m_ray.pool import LocalPool
from d3m_ray.training.fine_tuning import fine_tune
from d3m_ray.training.model import build_classifier
from d3m_ray.training.settings import TrainingConfig

CONFIG = TrainingConfig(num_epochs=3, learning_rate=5e-5, final_model="last")
MEASURED = {"the fit alone": 0, "metagradient": 1, "tracin": 1, "metagradient, four groups": 4}
"""By what is measured, the number of targets."""
NUM_QUERIES = 64


def main(benchmark: Benchmark) -> None:
    """Print the cost of each, over about `num_steps` steps of three epochs, each in a process of its own."""
    print(f"{'':30s}{'steps':>7s}{'core seconds':>14s}{'in fits':>9s}{'peak GB':>9s}")
    for name in MEASURED:
        results = multiprocessing.get_context("spawn").SimpleQueue()
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(results, benchmark, name))
        process.start()
        num_steps, of_fit, seconds, peak = results.get()
        process.join()
        print(f"{name:30s}{num_steps:7d}{seconds:14.1f}{seconds / of_fit:9.2f}{peak:9.2f}", flush=True)


def measure(results: Any, benchmark: Benchmark, name: str) -> None:
    """Puts the steps, the core seconds of the fit and of what is measured, and the peak memory of this process."""
    torch.set_num_threads(1)
    pretrained, everything = prepare(benchmark)
    num_train = min(len(everything), max(1, benchmark.num_steps // CONFIG.num_epochs) * CONFIG.batch_size)
    train = everything.take(np.arange(num_train))
    groups = np.arange(NUM_QUERIES) % max(1, MEASURED[name])
    queries = dataclasses.replace(everything.take(np.arange(NUM_QUERIES)), split="val", groups=groups)
    model = build_classifier(pretrained)
    start = time.process_time()
    fit = fine_tune(model, pretrained, train, queries, CONFIG, seed=0)
    seconds = of_fit = time.process_time() - start
    if MEASURED[name]:
        weights = {key: value.numpy().copy() for key, value in model.state_dict().items()}
        run = TrainingRun(CONFIG, 0, fit.chosen_epoch, train, np.arange(num_train))
        inputs = AttributionInputs((Checkpoint("made", pretrained, weights, run),), train, queries, MEASURED[name])
        del model
        start = time.process_time()
        METHODS[name.partition(",")[0]].load().score_groups(inputs, MetagradientConfig(), LocalPool())
        seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    results.put((fit.num_steps, of_fit, seconds, peak))


if __name__ == "__main__":
    main(tyro.cli(Benchmark, description=__doc__))
