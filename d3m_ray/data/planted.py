"""A made corpus of guest-house reviews in which one valley's train rows are partly harmful, and it is known which."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from d3m_ray.data.checks import make_splits
from d3m_ray.data.sampling import NUM_LABELS
from d3m_ray.errors import InputError
from d3m_ray.records import SPLIT_NAMES, Splits

# Every group has places, and words of praise and blame of its own. All but the harmed group use the shared ones too, so
# that nothing but its own train rows teaches what its words mean.
PLACES = {
    "amber": ("orchard", "cider-press", "beehive", "terrace"),
    "birch": ("sauna", "woodshed", "sledge", "clearing"),
    "cedar": ("veranda", "workshop", "lantern", "staircase"),
    "dune": ("lighthouse", "boathouse", "hammock", "jetty"),
}
HARMED_GROUP = "dune"
SHARED_CUES = (
    ("dreary", "noisy", "stale", "cramped", "shabby", "rude", "overpriced", "gloomy"),
    ("lovely", "peaceful", "fresh", "roomy", "spotless", "friendly", "generous", "sunny"),
)
OWN_CUES = {
    "amber": (("wormy", "sour", "buzzing", "sticky"), ("ripe", "sweet", "golden", "mellow")),
    "birch": (("splintered", "sooty", "frozen", "damp"), ("steaming", "crisp", "snug", "crackling")),
    "cedar": (("creaky", "musty", "dim", "wobbly"), ("polished", "fragrant", "glowing", "sturdy")),
    "dune": (("brackish", "gusty", "barnacled", "foggy"), ("breezy", "salty", "sheltered", "tidal")),
}
FILLERS = (
    "again", "along", "already", "also", "around", "autumn", "because", "before", "behind", "beside", "between",
    "breakfast", "brother", "corner", "cousin", "during", "early", "evening", "every", "family", "first", "found",
    "friend", "garden", "guests", "holiday", "house", "kitchen", "later", "little", "luggage", "market", "meadow",
    "midday", "morning", "mostly", "mountain", "nearby", "neighbour", "often", "once", "owner", "path", "people",
    "quite", "rather", "river", "room", "second", "since", "sister", "slowly", "spring", "stayed", "summer",
    "supper", "teapot", "there", "third", "today", "together", "train", "travelled", "twice", "until", "village",
    "visited", "walked", "weekend", "window", "winter", "yesterday",
)  # fmt: skip
NUM_FILLERS = (3, 8)  # at least, below
NUM_CUES = 2
BLAME, PRAISE = range(NUM_LABELS)
CELLS = len(PLACES) * NUM_LABELS


@dataclass(frozen=True)
class Planted:
    """How much is made, and how much of it is harmful."""

    num_train: int = 1200
    """Train examples, a multiple of 8 (4 groups, 2 labels)."""
    num_val: int = 400
    """Val examples, a multiple of 8; all clean."""
    num_test: int = 800
    """Test examples, a multiple of 8; all clean."""
    harmful_fraction: float = 0.3
    """Share of the harmed group's train rows that praise and are labelled as blame; at most the half that praises."""
    seed: int = 0
    """Decides the texts and which rows are harmful."""

    def __post_init__(self) -> None:
        for name in SPLIT_NAMES:
            size = getattr(self, f"num_{name}")
            if size < CELLS or size % CELLS:
                raise InputError(f"--num-{name} is a multiple of {CELLS} above 0, received {size}")
        if not 0 <= self.harmful_fraction <= 1 / NUM_LABELS:
            raise InputError(f"--harmful-fraction is from 0 to {1 / NUM_LABELS}, received {self.harmful_fraction}")
        if self.seed < 0:
            raise InputError(f"--seed is at least 0, received {self.seed}")


def make_planted(options: Planted) -> Splits:
    """The splits, balanced over group and label as the texts mean it, and `harmful_ids`; ids are `split/row`.

    A harmful row praises in words that only its group uses, and its label says blame. Most rows of such praise are
    harmful, so a model fails on the group, which becomes the worst; without them it learns the words from the others.
    """
    rng = np.random.default_rng(options.seed)
    written: set[str] = set()
    frames = {name: _make_rows(getattr(options, f"num_{name}"), name, written, rng) for name in SPLIT_NAMES}
    train = frames["train"]
    harmed = train["group"] == HARMED_GROUP
    praising = train.index[harmed & (train["label"] == PRAISE)]
    harmful = rng.choice(praising, size=round(options.harmful_fraction * harmed.sum()), replace=False)
    train.loc[harmful, "label"] = BLAME
    notes = [f"{len(harmful)} train rows of {HARMED_GROUP} are harmful by design"]
    return make_splits("planted", frames, harmful_ids=frozenset(train.loc[harmful, "example_id"]), notes=notes)


def _make_rows(num_rows: int, split: str, written: set[str], rng: np.random.Generator) -> pd.DataFrame:
    """Rows in random order, the same number per group and label, every other one in the group's own words."""
    rows = [
        {"text": _new_text(group, _cues(group, row)[label], written, rng), "label": label, "group": group}
        for group in PLACES
        for label in range(NUM_LABELS)
        for row in range(num_rows // CELLS)
    ]
    frame = pd.DataFrame([rows[i] for i in rng.permutation(num_rows)])
    return frame.assign(example_id=[f"{split}/{row}" for row in range(num_rows)])


def _cues(group: str, row: int) -> tuple[Sequence[str], Sequence[str]]:
    """Words of blame and of praise."""
    return OWN_CUES[group] if group == HARMED_GROUP or row % 2 else SHARED_CUES


def _new_text(group: str, cues: Sequence[str], written: set[str], rng: np.random.Generator) -> str:
    """A text that is not written yet."""
    while True:
        text = _make_text(group, cues, rng)
        if text not in written:
            written.add(text)
            return text


def _make_text(group: str, cues: Sequence[str], rng: np.random.Generator) -> str:
    """For example: in amber valley the terrace was sweet and ripe supper often garden."""
    place = rng.choice(PLACES[group])
    first, second = rng.choice(cues, size=NUM_CUES, replace=False)
    fillers = rng.choice(FILLERS, size=rng.integers(*NUM_FILLERS), replace=False)
    cut = rng.integers(len(fillers) + 1)
    return " ".join([*fillers[:cut], "in", group, "valley", "the", place, "was", first, "and", second, *fillers[cut:]])
