from d3m_ray.data import PlantedOptions, distribution_table
from d3m_ray.data.planted import make_planted


def test_every_cell_of_every_split_is_counted() -> None:
    splits = make_planted(PlantedOptions(num_train=80, num_val=16, num_test=24, harmful_fraction=0.5))
    table = distribution_table(splits)
    assert list(table.columns) == ["split", "group", "label", "num_examples"]
    counts = table.pivot(index=["split", "group"], columns="label", values="num_examples")
    assert len(counts) == 3 * 4
    assert counts.loc[("train", "amber")].tolist() == [10, 10]
    assert counts.loc[("train", "dune")].tolist() == [20, 0], "an empty cell has a row"
    assert counts.loc["val"].to_numpy().tolist() == [[2, 2]] * 4
    assert counts.loc["test"].to_numpy().tolist() == [[3, 3]] * 4
