"""What a GPU makes of this engine, in one command: whether results are right on it, how fast, in what memory.

Needs no data, no network and no Ray: models of random weights, examples of random tokens with ToxiGen's lengths. Each
finding is printed as soon as it is there, and all of them stand in one JSON file at the end; what fails is in it too,
and makes the exit status 1. Without the device that was asked for nothing is measured: one line, and exit status 2.
"""

import copy
import dataclasses
import itertools
import json
import platform
import sys
import time
import traceback
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
from torch import nn
from transformers import PreTrainedModel

from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint, TrainingRun
from d3m_ray.attribution.metagradient.settings import MetagradientConfig
from d3m_ray.attribution.registry import METHODS, Method
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.pool import LocalPool
from d3m_ray.training.batching import TokenizedExamples, training_batches
from d3m_ray.training.fine_tuning import build_optimizer, fine_tune, predict
from d3m_ray.training.model import build_classifier, logits_of, margins_of
from d3m_ray.training.precision import autocast
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.training.settings import TrainingConfig

THESIS_EPOCHS, PADDED_LENGTH = 3, 128
SETTINGS = {"trak": TrakConfig(), "ekfac": EkfacConfig(), "metagradient": MetagradientConfig()}
SKIPPED = ("random", "bm25", "traker", "kronfluence")  # draw, read no model, or are other libraries


@dataclass(frozen=True)
class Options:
    """What to measure, and how long it may take."""

    device: Literal["cuda", "cpu"] = "cuda"
    """cpu tries the command itself, where no GPU is."""
    size: Literal["base", "minilm", "tiny"] = "base"
    """The model whose speed is measured; results are compared on the tiny one."""
    num_steps: int = 60
    """Training steps that are timed."""
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
            found[name] = tried(part, options)
        print(json.dumps({name: found[name], "seconds": round(time.perf_counter() - start, 1)}), flush=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    wrong = [name for name in PARTS if has_failed(found[name])]
    if wrong:
        print(f"failed: {', '.join(wrong)}; why is in {options.out}", file=sys.stderr)
    return 1 if wrong else 0


def tried(part: Callable[[Options], Any], options: Options) -> Any:
    """What a part found, or how it failed: the others go on."""
    try:
        return part(options)
    except Exception:
        return {"failed": traceback.format_exc().splitlines()[-12:]}


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


def config_of(**changes: Any) -> TrainingConfig:
    """The thesis's training, in whatever precision is fast."""
    return dataclasses.replace(TrainingConfig(num_epochs=1, learning_rate=5e-5, final_model="last"), **changes)


def fitted(pretrained: PretrainedModel, device: str, config: TrainingConfig, num_train: int = 320) -> PreTrainedModel:
    """A model after one fit on made-up examples."""
    model = build_classifier(pretrained, device)
    train = made_examples("train", num_train)
    fine_tune(model, pretrained, train, train, config, seed=0)
    return model


def vector(model: nn.Module) -> torch.Tensor:
    """[P] float64 on the CPU: all parameters end to end."""
    return torch.cat([p.detach().flatten().double().cpu() for p in model.parameters()])


def same_bits(options: Options) -> dict[str, bool]:
    """Whether a fit twice has the same bits, in each precision, and without some examples of it too."""
    pretrained, train = made_model("tiny"), made_examples("train", 320)
    found = {}
    for precision, kept in itertools.product(("float32", "bfloat16"), (None, np.arange(20, 320))):
        vectors = []
        for _ in range(2):
            model = build_classifier(pretrained, options.device)
            config = config_of(precision=precision)
            fine_tune(model, pretrained, train, train, config, seed=0, kept=kept)
            vectors.append(vector(model))
        found[f"{precision}, {'all' if kept is None else 'without 20'}"] = torch.equal(*vectors)
    return found


def beside_cpu(options: Options) -> dict[str, float]:
    """How far a fit without dropout is from the CPU's, in the way that training went; and its predictions."""
    pretrained = made_model("tiny", dropout=0.0)
    start = vector(loaded(pretrained, "cpu"))
    cpu, other = (fitted(pretrained, device, config_of(precision="float32")) for device in ("cpu", options.device))
    val = made_examples("val", 200)
    margins = [predict(model, val, "float32").margins for model in (cpu, other)]
    return {
        "weights": float((vector(other) - vector(cpu)).norm() / (vector(cpu) - start).norm()),
        "margins": float(np.abs(margins[0] - margins[1]).max() / np.abs(margins[0]).max()),
    }


def inputs_on(device: Any, pretrained: PretrainedModel, num_train: int, precision: Any) -> AttributionInputs:
    """What a method scores, on a device: a checkpoint that the CPU trained without dropout."""
    config = config_of(precision="float32")
    weights = {name: value.cpu().numpy() for name, value in fitted(pretrained, "cpu", config, 64).state_dict().items()}
    train = made_examples("train", num_train)
    run = TrainingRun(config, 0, 1, train, np.arange(num_train))
    checkpoint = Checkpoint("made up", pretrained, weights, run, device)
    return AttributionInputs((checkpoint,), train, made_examples("val", 40), 4, precision=precision)


def methods(options: Options) -> dict[str, Any]:
    """How far each method's scores of groups are from the CPU's, of the largest; in float32."""
    found: dict[str, Any] = {}
    for name, method in METHODS.items():
        if name in SKIPPED:
            continue
        settings = SETTINGS.get(method.settings or "")
        found[name] = tried(partial(scores_apart, method, settings), options)
    return found


def scores_apart(method: Method, settings: Any, options: Options) -> float:
    """How far one method's scores of groups are from the CPU's, of the largest."""
    cpu, other = (
        method.load().score_groups(
            inputs_on(device, made_model("tiny", dropout=0.0), 64, "float32"), settings, LocalPool()
        )
        for device in ("cpu", options.device)
    )
    return float(np.abs(cpu - other).max() / np.abs(cpu).max())


def training(options: Options) -> dict[str, Any]:
    """Examples a second and peak memory of fine-tuning: the thesis's path and this package's, and fits an hour."""
    found: dict[str, Any] = {}
    for name, step in (("thesis", thesis_step), ("d3m_ray", own_step)):
        pretrained, train = made_model(options.size), made_examples("train", TOXIGEN_ROWS["train"])
        model = stock(pretrained, options.device) if name == "thesis" else loaded(pretrained, options.device)
        optimizer = build_optimizer(model.train(), TrainingConfig())
        batches = list(
            itertools.islice(training_batches(train.lengths, 32, np.random.default_rng(0)), 5 + options.num_steps)
        )
        take = partial(step, model, train, optimizer)
        rate, memory = timed(take, batches, options)
        found[name] = {
            "examples_per_second": rate,
            "fits_per_hour": 3600 * rate / (TOXIGEN_ROWS["train"] * THESIS_EPOCHS),
            "peak_gib": memory,
        }
    found["ratio"] = found["d3m_ray"]["examples_per_second"] / found["thesis"]["examples_per_second"]
    return found


def thesis_step(model: Any, train: TokenizedExamples, optimizer: torch.optim.Optimizer, indices: np.ndarray) -> None:
    """A step in float32 on texts padded to 128 tokens."""
    batch = train.batch(indices, model.device, PADDED_LENGTH)
    take_step(model, logits_of(model, batch), batch.labels, optimizer)


def own_step(model: Any, train: TokenizedExamples, optimizer: torch.optim.Optimizer, indices: np.ndarray) -> None:
    """A step as `fine_tune` takes it."""
    batch = train.batch(indices, model.device)
    with autocast(model.device, "auto"):
        logits = logits_of(model, batch)
    take_step(model, logits, batch.labels, optimizer)


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
    "same_bits": same_bits,
    "training": training,
    "beside_cpu": beside_cpu,
    "methods": methods,
    "scoring": scoring,
}

if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
