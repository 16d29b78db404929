"""The corpus `menus`, with an option of its own."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import d3m_ray as d3m

KITCHENS, VERDICTS = ("bistro", "canteen"), ("dull", "tasty")
DISHES = ("soup", "salad", "curry", "pie", "stew", "pasta")


@dataclass(frozen=True)
class MenuOptions:
    """Options of the menus."""

    num_dishes: int = 48
    """Examples of each split."""


@d3m.corpus("menus", options=MenuOptions, num_removed=(0, "10%"))
def menus(options: MenuOptions, folder: Path | None) -> d3m.Splits:
    """made-up dishes of two kitchens, and whether they are tasty"""
    if folder is not None:
        raise d3m.DataError(f"menus are made up, not read, received --data {folder}; leave it out")
    return d3m.Splits("menus", KITCHENS, *(dishes(split, options.num_dishes) for split in ("train", "val", "test")))


def dishes(split: str, num_dishes: int) -> d3m.Examples:
    """One split; kitchens and verdicts by turns."""
    numbers = np.arange(num_dishes)
    labels, groups = numbers % 2, numbers // 2 % 2
    texts = [
        f"{split} dish {number}: the {KITCHENS[group]} has a {VERDICTS[label]} {DISHES[number % len(DISHES)]}"
        for number, label, group in zip(numbers, labels, groups, strict=True)
    ]
    return d3m.Examples(split, [f"{split}/{number}" for number in numbers], texts, labels, groups)
