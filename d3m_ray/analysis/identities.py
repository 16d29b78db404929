"""Which rows of the trials table are identities, and not cells or summaries."""

from collections.abc import Collection, Iterable

from d3m_ray.metrics.groups import CELL_SEPARATOR


def identity_names(rows: Iterable[str], label_names: Collection[str]) -> list[str]:
    """The identities among the groups of the trials table, sorted; neither their cells nor the summary rows.

    They are the rows that have cells, whatever slashes their names hold: `metrics.group_metrics` refuses names by which
    a cell would be another row. Without the labels' names, as of a damaged record, a row is taken to have cells where
    another begins with its name and a slash; the cell `a/kind` is then an identity where `a/kind/b` is one.
    """
    found = set(rows)
    if label_names:
        return sorted(row for row in found if any(f"{row}{CELL_SEPARATOR}{name}" in found for name in label_names))
    ends = ((row, place) for row in found for place, letter in enumerate(row) if letter == CELL_SEPARATOR)
    return sorted(found & {row[:place] for row, place in ends})
