"""How many examples each group has by label in each split, as a table."""

import numpy as np
import pandas as pd

from d3m_ray.records import Splits


def distribution_table(splits: Splits) -> pd.DataFrame:
    """One row per split, group and label (its name), empty cells included, with `num_examples`."""
    names = splits.group_names
    rows = [
        {
            "split": split,
            "group": name,
            "label": label_name,
            "num_examples": int(np.sum((examples.groups == group) & (examples.labels == label))),
        }
        for split, examples in splits.by_name().items()
        for group, name in enumerate(names)
        for label, label_name in enumerate(splits.label_names)
    ]
    return pd.DataFrame(rows)
