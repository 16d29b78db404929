"""The tests mirror the package: a module has the test file of its name, or this file says which one covers it."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "d3m_ray"
COVERED_BY = {
    "__main__": "commands/test_results.py",
    "analysis.corpus": "analysis/test_corpus_of_store.py",
    "analysis.export": "commands/test_export.py",
    "analysis.figures.agreement": "analysis/figures/test_content.py",
    "analysis.figures.bands": "analysis/figures/test_content.py",
    "analysis.figures.curves": "analysis/figures/test_content.py",
    "analysis.figures.differences": "analysis/figures/test_content.py",
    "analysis.figures.files": "analysis/figures/test_catalogue.py",
    "analysis.figures.forest": "analysis/figures/test_content.py",
    "analysis.figures.heat_maps": "analysis/figures/test_content.py",
    "analysis.figures.histograms": "analysis/figures/test_content.py",
    "analysis.figures.lds": "analysis/figures/test_content.py",
    "analysis.figures.page": "analysis/figures/test_catalogue.py",
    "analysis.figures.pareto": "analysis/figures/test_content.py",
    "analysis.figures.removed": "analysis/figures/test_content.py",
    "analysis.figures.sizes": "analysis/figures/test_content.py",
    "analysis.identities": "analysis/test_corpus_of_store.py",
    "analysis.lds_on_screen": "analysis/test_lds.py",
    "analysis.output": "commands/test_results.py",
    "analysis.report.answer": "analysis/test_report.py",
    "analysis.report.cells": "analysis/test_report.py",
    "analysis.report.columns": "analysis/test_report.py",
    "analysis.report.costs": "analysis/test_report.py",
    "analysis.report.drawings": "analysis/test_report.py",
    "analysis.report.gaps": "analysis/test_report.py",
    "analysis.report.index": "analysis/test_report.py",
    "analysis.report.page": "analysis/test_report.py",
    "analysis.report.rendering": "analysis/test_report.py",
    "analysis.report.sections": "analysis/test_report.py",
    "analysis.report.setting": "analysis/test_report.py",
    "analysis.report.tables": "analysis/test_report.py",
    "analysis.report.visible": "analysis/test_report.py",
    "analysis.written_tables": "commands/test_results.py",
    "attribution.ekfac.curvature": "attribution/ekfac/test_scores.py",
    "attribution.ekfac.fisher": "attribution/ekfac/test_scores.py",
    "attribution.ekfac.settings": "attribution/ekfac/test_scores.py",
    "attribution.forward": "attribution/test_targets.py",
    "attribution.head_states": "attribution/test_similarity.py",
    "attribution.inputs": "attribution/test_methods.py",
    "attribution.libraries.kronfluence_margin": "attribution/libraries/test_kronfluence.py",
    "attribution.libraries.kronfluence_steps": "attribution/libraries/test_kronfluence.py",
    "attribution.libraries.traker_margin": "attribution/libraries/test_traker.py",
    "attribution.metagradient.differentials": "attribution/metagradient/test_scores.py",
    "attribution.metagradient.methods": "attribution/metagradient/test_scores.py",
    "attribution.metagradient.optimiser": "attribution/metagradient/test_scores.py",
    "attribution.metagradient.replay": "attribution/metagradient/test_scores.py",
    "attribution.metagradient.reverse": "attribution/metagradient/test_scores.py",
    "attribution.metagradient.settings": "attribution/metagradient/test_scores.py",
    "attribution.query_sets": "attribution/test_methods.py",
    "attribution.trak.lookups": "attribution/trak/test_gradients.py",
    "attribution.trak.settings": "attribution/trak/test_scores.py",
    "cluster.worker": "cluster/test_sweep.py",
    "commands.arguments": "commands/test_results.py",
    "commands.check": "store/test_check.py",
    "commands.compact": "store/test_compacted.py",
    "commands.engines": "commands/test_api.py",
    "commands.examples": "analysis/test_examples.py",
    "commands.flags": "commands/test_bad_inputs.py",
    "commands.terminal": "commands/test_results.py",
    "data.cells": "selection/test_arms.py",
    "data.corpora": "data/test_csv_folder.py",
    "data.files": "data/test_own.py",
    "data.own_options": "data/test_own.py",
    "data.rows": "data/test_own.py",
    "data.sampling": "data/test_own.py",
    "data.tables": "data/test_values.py",
    "errors": "commands/test_bad_inputs.py",
    "experiment.compatibility": "training/test_unusual_models.py",
    "experiment.config": "experiment/test_plan.py",
    "experiment.failures": "experiment/test_story.py",
    "experiment.keys": "experiment/test_identity.py",
    "experiment.run": "experiment/test_story.py",
    "experiment.scoring": "experiment/test_story.py",
    "experiment.studies": "experiment/test_lds.py",
    "experiment.subsets": "experiment/test_lds.py",
    "made_up": "test_testing.py",
    "pool": "cluster/test_pool.py",
    "selection.numbers": "selection/test_arms.py",
    "selection.settings": "experiment/test_identity.py",
    "store.checkpoints": "store/test_store.py",
    "store.experiments": "store/test_store.py",
    "store.errors": "store/test_faults.py",
    "store.files": "store/test_faults.py",
    "store.parquet": "store/test_store.py",
    "store.preparations": "commands/test_api.py",
    "store.reachability": "store/test_faults.py",
    "store.records": "store/test_store.py",
    "store.remote": "store/test_faults.py",
    "store.results": "store/test_store.py",
    "store.score_rows": "store/test_store.py",
    "store.tables": "store/test_store.py",
    "store.wholeness": "store/test_store.py",
    "training.last_layer": "training/test_recipes.py",
    "training.memory": "attribution/test_worker.py",
    "training.pretrained": "training/test_model.py",
    "training.settings": "training/test_fine_tuning.py",
    "training.vocabulary": "training/test_preparation.py",
    "trials.engine": "cluster/test_sweep.py",
    "trials.settings": "cluster/test_engine.py",
    "trials.stored_fits": "store/test_requests.py",
    "trials.trial": "cluster/test_sweep.py",
    "version": "store/test_store.py",
}
"""The modules without a test file of their name, and the file that covers each."""


@cache
def _modules() -> dict[str, Path]:
    paths = (path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in paths}


def _mirror(module: str) -> Path:
    *folders, name = module.split(".")
    return TESTS.joinpath(*folders, f"test_{name.strip('_')}.py")


@cache
def _imports(path: Path) -> frozenset[str]:
    return frozenset(_imported(path, _modules()))


def _imported(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that a file imports, inside functions too, or names in a text to import them."""
    folder = ".".join(path.parent.relative_to(PACKAGE).parts) if path.is_relative_to(PACKAGE) else ""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from {node.value, f"{folder}.{node.value}"} & set(modules)  # as a registry does
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE.name:
            base = str(node.module).removeprefix(PACKAGE.name).removeprefix(".")
            named = [base, *(f"{base}.{alias.name}".removeprefix(".") for alias in node.names)]
            yield from (name for name in named if name in modules)


def _reached(start: Path, modules: dict[str, Path]) -> set[str]:
    seen: set[str] = set()
    waiting = [start, TESTS / "conftest.py"]
    while waiting:
        new = _imports(waiting.pop()) - seen
        seen |= new
        waiting += [modules[name] for name in new]
    return seen


def test_every_module_has_a_test_file_of_its_name_or_one_that_covers_it() -> None:
    without = {module for module in _modules() if not _mirror(module).exists()}
    assert sorted(without) == sorted(COVERED_BY)


def test_what_covers_a_module_reaches_it() -> None:
    modules = _modules()
    reached = {test: _reached(TESTS / test, modules) for test in set(COVERED_BY.values())}
    assert [module for module, test in COVERED_BY.items() if module not in reached[test]] == []
