"""The board: it asks for our metrics and for no others, and lies where Ray's Grafana looks."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.util.metrics import Counter, Histogram

from d3m_ray.cluster import grafana
from d3m_ray.cluster.grafana import BOARD, place_board
from d3m_ray.cluster.metrics import METRICS

DASHBOARD = json.loads(BOARD.read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]


def exported(name: str) -> str:
    """What Prometheus knows a metric by."""
    return f"ray_{name}" + {Counter: "_total", Histogram: "_bucket"}.get(METRICS[name][0], "")


def test_every_metric_is_on_the_board_and_no_other_is_asked_for() -> None:
    asked = {name for expression in EXPRESSIONS for name in re.findall(r"ray_\w+", expression)}
    assert asked == {exported(name) for name in METRICS}


def test_what_is_asked_of_a_metric_is_among_its_tags() -> None:
    of_ray = {"NodeAddress", "le"}
    for expression in EXPRESSIONS:
        tags = set().union(*(METRICS[name][1] for name in METRICS if exported(name) in expression))
        by = {tag.strip() for tags_of in re.findall(r"by \(([^)]*)\)", expression) for tag in tags_of.split(",")}
        assert by <= tags | of_ray, expression
        assert 'experiment=~"$experiment"' in expression


def test_the_panels_have_places_that_do_not_meet() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in PANELS)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_variables_that_are_used_are_defined() -> None:
    named = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    text = json.dumps(PANELS)
    used = set(re.findall(r"\$\{?(\w+)\}?", text)) - {"__range"}
    assert used == named


def test_the_board_is_put_beside_rays_own_once_these_are_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in (grafana.BOARDS_VARIABLE, grafana.METRICS_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    node = SimpleNamespace(get_session_dir_path=lambda: str(tmp_path))
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    assert not place_board()
    folder = tmp_path / "metrics" / "grafana" / "dashboards"
    folder.mkdir(parents=True)
    assert place_board()
    assert [path.name for path in folder.iterdir()] == ["d3m_ray_grafana_dashboard.json"]
    assert json.loads((folder / "d3m_ray_grafana_dashboard.json").read_text()) == DASHBOARD
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv(grafana.BOARDS_VARIABLE, str(elsewhere))
    assert place_board()
    assert len([*elsewhere.iterdir()]) == 1
    monkeypatch.setattr(ray._private.worker, "_global_node", None)  # joined as ray://
    assert not place_board()
