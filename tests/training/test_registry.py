"""The recipes by name: a line each, loaded when the first model is fitted, and the settings that enter their keys."""

import pytest

from d3m_ray.training import recipes
from d3m_ray.training.registry import RECIPES
from d3m_ray.training.settings import RobustConfig


@pytest.mark.parametrize("name", RECIPES)
def test_an_entry_tells_of_the_recipe_in_a_line_and_loads_it(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.summary
    assert "\n" not in recipe.summary
    assert not recipe.summary.endswith(".")
    assert recipe.load() is getattr(recipes, name)


def test_each_setting_of_recipes_is_read_by_one() -> None:
    robust = RobustConfig()
    read = [name for recipe in RECIPES.values() for name in recipe.read_settings(robust)]
    assert sorted(read) == sorted(vars(robust))
    assert RECIPES["jtt"].read_settings(robust) == {"jtt_first_epochs": 1, "jtt_upweight": 6}
