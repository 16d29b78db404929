"""The page of one experiment."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from d3m_ray.analysis.report.answer import Answer, answer_of
from d3m_ray.analysis.report.gaps import TrialCounts, progress_of, states_of
from d3m_ray.analysis.report.rendering import render
from d3m_ray.analysis.report.sections import (
    Section,
    costs_section,
    figures_section,
    gaps_section,
    result_sections,
    setting_section,
)
from d3m_ray.analysis.report.setting import question
from d3m_ray.analysis.results import Results
from d3m_ray.version import __version__


@dataclass(frozen=True)
class ReportPage:
    """What the template is filled with."""

    name: str
    dataset: str
    model: str
    question: str
    answer: Answer
    progress: TrialCounts
    sections: Sequence[Section]
    has_gaps: bool
    index_href: str | None
    version: str = __version__

    @property
    def contents(self) -> list[tuple[str, str]]:
        """Anchor and title of each part, in the order of the page."""
        return [("headline", "The question and the answer"), *((s.id, s.title) for s in self.sections)]


def report_page(
    results: Results,
    figures: Mapping[str, str],
    files: Mapping[str, Sequence[str]] | None = None,
    index_href: str | None = None,
    damaged: Collection[str] = (),
) -> str:
    """The experiment as one HTML page that loads nothing, from the question to what is missing.

    `figures` are `<svg>` elements by name, `files` the relative addresses of the same figures as files, `index_href` is
    that of the page that compares the experiments. `damaged` are the sentences about damaged files: they are read last,
    so it may be the list that `results.say` appends to. What the store lacks, the page names.
    """
    answer = answer_of(results)
    states = states_of(results)
    progress = progress_of(states)
    sections = [
        setting_section(results),
        figures_section(figures, files or {}),
        *result_sections(results),
        costs_section(results),
        gaps_section(results, states, list(damaged)),
    ]
    page = ReportPage(
        name=results.name,
        dataset=str(results.configuration["dataset"]),
        model=str(results.configuration["model"]),
        question=question(results),
        answer=answer,
        progress=progress,
        sections=sections,
        has_gaps=progress.num_done < progress.num_planned or bool(sections[-1].items),
        index_href=index_href,
    )
    return render("template.html.j2", page=page)
