"""How many examples each group has by label in each split, as a table."""

import numpy as np
import pandas as pd

from d3m_ray.records import Splits


def distribution_table(splits: Splits) -> pd.DataFrame:
    """One row per split, group and label, empty cells included: `split`, `group`, `label`, `num_examples`."""
    names = splits.group_names
    rows = [
        {
            "split": split,
            "group": name,
            "label": label,
            "num_examples": int(np.sum((examples.groups == group) & (examples.labels == label))),
        }
        for split, examples in splits.by_name().items()
        for group, name in enumerate(names)
        for label in range(splits.num_labels)
    ]
    return pd.DataFrame(rows)
