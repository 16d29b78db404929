"""What a GPU makes of this engine, in one command: whether results are right on it, how fast, in what memory.

Needs no data, no network and no Ray: models of random weights, examples of random tokens with ToxiGen's lengths. Each
finding is printed as soon as it is there, and all of them stand in one JSON file at the end; what fails is in it too,
and makes the exit status 1. Without the device that was asked for nothing is measured: one line, and exit status 2.
"""

import contextlib
import copy
import itertools
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
import tyro
from corpora import TOXIGEN_ROWS, loaded, made_examples, made_model, stock
from gpu_results import SETTINGS, beside_cpu, inputs_on, methods, same_bits, stacked_beside_single, tried
from torch import nn

from d3m_ray.attribution.registry import METHODS
from d3m_ray.pool import LocalPool
from d3m_ray.training.batching import TokenizedExamples, training_batches
from d3m_ray.training.fine_tuning import (
    build_optimizer,
    optimizer_of,
    parameters_with_gradients,
    seeded,
)
from d3m_ray.training.model import load_weights, logits_of, margins_of
from d3m_ray.training.precision import autocast
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.training.stacked import Stack, build_stackable
from d3m_ray.training.stacked import take_step as stacked_step
from d3m_ray.training.steps import Step, step_logits

THESIS_EPOCHS, PADDED_LENGTH = 3, 128


@dataclass(frozen=True)
class Options:
    """What to measure, and how long it may take."""

    device: Literal["cuda", "cpu"] = "cuda"
    """cpu tries the command itself, where no GPU is."""
    size: Literal["base", "minilm", "tiny"] = "base"
    """The model whose speed is measured; results are compared on the tiny one."""
    num_steps: int = 60
    """Training steps that are timed."""
    stacks: tuple[int, ...] = (1, 4, 8, 16)
    """How many fits are trained at once, by turns."""
    num_scored: int = 1000
    """Train examples that are scored."""
    max_seconds: float = 480
    """No further part is begun after this."""
    out: Path = Path("gpu.json")
    """Where the findings go."""


def main(options: Options) -> int:
    """Go through the parts in the order of what is worth most, write what each found, and return the exit status."""
    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            "--device cuda takes a GPU that torch can use, and this machine has none: run it where one is, "
            "or try the command itself with --device cpu",
            file=sys.stderr,
        )
        return 2
    options.out.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    found: dict[str, Any] = {"machine": machine(options)}
    for name, part in PARTS.items():
        seconds = time.perf_counter() - start
        if seconds > options.max_seconds:
            found[name] = f"not begun: {seconds:.0f} s were gone"
        else:
            found[name] = tried(partial(part, options))
        print(json.dumps({name: found[name], "seconds": round(time.perf_counter() - start, 1)}), flush=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    wrong = [name for name in PARTS if has_failed(found[name])]
    if wrong:
        print(f"failed: {', '.join(wrong)}; why is in {options.out}", file=sys.stderr)
    return 1 if wrong else 0


def has_failed(found: Any) -> bool:
    """Whether a part, or something within it, failed, or came out false where only true is right."""
    if isinstance(found, dict):
        return "failed" in found or any(map(has_failed, found.values()))
    return found is False


def machine(options: Options) -> dict[str, Any]:
    """What this ran on."""
    is_gpu = options.device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if is_gpu else platform.processor(),
        "memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1) if is_gpu else None,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def training(options: Options) -> dict[str, Any]:
    """Examples a second and peak memory of fine-tuning: the thesis's path and this package's, and fits an hour."""
    found: dict[str, Any] = {}
    for name, step in (("thesis", thesis_step), ("d3m_ray", own_step)):
        pretrained, train = made_model(options.size), made_examples("train", TOXIGEN_ROWS["train"])
        model = stock(pretrained, options.device) if name == "thesis" else loaded(pretrained, options.device)
        optimizer = build_optimizer(model.train(), TrainingConfig())
        exact = seeded(0, options.device) if name == "d3m_ray" else contextlib.nullcontext()
        with exact:  # as `fine_tune` has it
            found[name] = speed(partial(step, model, train, optimizer), batches_of(train, options), options)
    found["ratio"] = found["d3m_ray"]["examples_per_second"] / found["thesis"]["examples_per_second"]
    return found


def batches_of(train: TokenizedExamples, options: Options) -> list[np.ndarray]:
    """Those of an epoch that are timed, and five before."""
    batches = training_batches(train.lengths, 32, np.random.default_rng(0))
    return list(itertools.islice(batches, 5 + options.num_steps))


def speed(
    step: Callable[[np.ndarray], object], batches: list[np.ndarray], options: Options, num_fits: int = 1
) -> dict[str, float | None]:
    """Of steps that so many fits take at once: examples a second of all of them, fits an hour, and peak memory."""
    rate, memory = timed(step, batches, options)
    fits_per_hour = 3600 * num_fits * rate / (TOXIGEN_ROWS["train"] * THESIS_EPOCHS)
    return {"examples_per_second": num_fits * rate, "fits_per_hour": fits_per_hour, "peak_gib": memory}


def stacks(options: Options) -> dict[str, Any]:
    """The same of fits of one seed in a stack, each without a tenth of train, for each number of them."""
    return {f"{num_fits} at once": tried(partial(stack, num_fits, options)) for num_fits in options.stacks}


def stack(num_fits: int, options: Options) -> dict[str, float | None]:
    """Of one stack, whose memory may not be there."""
    pretrained, train, config = (
        made_model(options.size),
        made_examples("train", TOXIGEN_ROWS["train"]),
        TrainingConfig(),
    )
    model = build_stackable(pretrained, options.device)
    load_weights(model, pretrained.weights)
    stacked = Stack(model, parameters_with_gradients(model, train), num_fits)
    optimizer = optimizer_of(stacked.flat[:1], stacked.flat[1:], config)
    is_kept = torch.rand(num_fits, len(train), device=options.device) > 0.1
    model.train()
    take = partial(take_stacked_step, stacked, train, is_kept, config, optimizer)
    with seeded(0, options.device):
        return speed(take, batches_of(train, options), options, num_fits)


def take_stacked_step(
    stack: Stack,
    train: TokenizedExamples,
    is_kept: torch.Tensor,
    config: TrainingConfig,
    optimizer: torch.optim.Optimizer,
    indices: np.ndarray,
) -> None:
    """A step as `fine_tune_stacked` takes it."""
    stacked_step(stack, train, Step(0, indices, np.arange(len(indices))), is_kept, config, optimizer)


def thesis_step(model: Any, train: TokenizedExamples, optimizer: torch.optim.Optimizer, indices: np.ndarray) -> None:
    """A step in float32 on texts padded to 128 tokens."""
    batch = train.batch(indices, model.device, PADDED_LENGTH)
    take_step(model, logits_of(model, batch), batch.labels, optimizer)


def own_step(model: Any, train: TokenizedExamples, optimizer: torch.optim.Optimizer, indices: np.ndarray) -> None:
    """A step as `fine_tune` takes it."""
    take_step(model, *step_logits(model, train, Step(0, indices, np.arange(len(indices))), "auto", False), optimizer)


def take_step(model: Any, logits: torch.Tensor, labels: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Backward, clip, step."""
    nn.functional.cross_entropy(logits, labels).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def timed(
    run: Callable[[np.ndarray], object], batches: list[np.ndarray], options: Options
) -> tuple[float, float | None]:
    """Examples a second over these batches but the first five, and the peak memory in GiB."""
    is_gpu = options.device == "cuda"
    if is_gpu:
        torch.cuda.reset_peak_memory_stats()
    for indices in batches[:5]:
        run(indices)
    if is_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    for indices in batches[5:]:
        run(indices)
    if is_gpu:
        torch.cuda.synchronize()
    rate = sum(map(len, batches[5:])) / (time.perf_counter() - start)
    return rate, torch.cuda.max_memory_allocated() / 2**30 if is_gpu else None


def scoring(options: Options) -> dict[str, Any]:
    """Examples a second of TRAK and EK-FAC, in whatever precision is fast, beside a forward and backward pass."""
    pretrained = made_model(options.size, dropout=0.0)
    inputs = inputs_on(options.device, pretrained, options.num_scored, "auto")
    model = loaded(pretrained, options.device).eval()
    batches = [np.arange(start, min(start + 64, options.num_scored)) for start in range(0, options.num_scored, 64)]

    def backward(indices: np.ndarray) -> None:
        batch = inputs.train.batch(indices, model.device)
        with autocast(model.device, "auto"):
            logits = logits_of(model, batch)
        margins_of(logits, batch.labels).sum().backward()

    found: dict[str, Any] = {"forward and backward": timed(backward, [*batches[:1] * 5, *batches], options)[0]}
    for name in ("trak", "ekfac"):
        start = time.perf_counter()
        METHODS[name].load().score_groups(copy.copy(inputs), SETTINGS[name], LocalPool())
        found[name] = options.num_scored / (time.perf_counter() - start)
    if options.device == "cuda":
        found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return found


PARTS: dict[str, Callable[[Options], Any]] = {
    "same_bits": lambda options: same_bits(options.device),
    "training": training,
    "stacks": stacks,
    "stacked_beside_single": lambda options: stacked_beside_single(options.device),
    "beside_cpu": lambda options: beside_cpu(options.device),
    "methods": lambda options: methods(options.device),
    "scoring": scoring,
}

if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
