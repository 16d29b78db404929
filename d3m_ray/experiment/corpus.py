"""The corpus as the store keeps it: one row per example of each split, with the texts of train."""

import numpy as np
import pandas as pd

from d3m_ray.records import Splits
from d3m_ray.store.store import Store
from d3m_ray.waiting import Say

WITH_TEXTS = "train"  # the split whose texts a person reads beside scores; those of val and test are never stored


def corpus_rows(splits: Splits, data_hash: str, has_texts: bool) -> pd.DataFrame:
    """The rows of the table `examples`, split after split, each in its order; texts of train alone, and only if asked.

    `group` and `label_name` are the names, `label` the index of the label.
    """
    group_names, label_names = (np.array(names, dtype=object) for names in (splits.group_names, splits.label_names))
    frames = [
        pd.DataFrame(
            {
                "data_hash": data_hash,
                "split": split,
                "example_id": examples.example_ids,
                "group": group_names[examples.groups],
                "label": examples.labels,
                "label_name": label_names[examples.labels],
                "text": pd.Series(
                    examples.texts if has_texts and split == WITH_TEXTS else None, range(len(examples)), "str"
                ),
            }
        )
        for split, examples in splits.by_name().items()
    ]
    return pd.concat(frames, ignore_index=True)


def store_corpus(store: Store, splits: Splits, data_hash: str, has_texts: bool, say: Say) -> None:
    """Bring the store to hold the examples of a corpus, with train's texts where they are wanted.

    A stored table that is whole stays as it is, but one without texts is written again where they are wanted. One with
    texts that are not wanted stays too: what was stored on purpose is the user's to delete, and it is said how.
    """
    if store.has_whole("examples", data_hash, None, say):
        of_train = [("split", "==", WITH_TEXTS)]
        texts = store.read_all("examples", columns=["text"], filters=of_train, keys={data_hash: None})["text"]
        stored_with_texts = bool(texts.notna().any())
        if stored_with_texts and not has_texts:
            say(
                "the store holds this corpus's train texts from an earlier run, which --no-store-texts does not "
                f"delete: delete {store.file_of('examples', data_hash)} and run the same command again"
            )
        if stored_with_texts or not has_texts:
            return
    configuration = {"dataset": splits.name, "data_hash": data_hash, "has_texts": has_texts}
    store.write("examples", data_hash, corpus_rows(splits, data_hash, has_texts), configuration)
