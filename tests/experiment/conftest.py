"""Attribution methods whose scorers are others for a while."""

import dataclasses
from collections.abc import Callable

import pytest

from d3m_ray.attribution.registry import METHODS
from d3m_ray.attribution.scorers import Score


@pytest.fixture
def replace_scorers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function of a method's name and of the scorers that it gets: `replace_scorers("ekfac", score_groups=fails)`."""

    def replace(name: str, **scorers: Score) -> None:
        others = dataclasses.replace(METHODS[name].load(), **scorers)
        monkeypatch.setitem(METHODS, name, dataclasses.replace(METHODS[name], load=lambda: others))

    return replace
