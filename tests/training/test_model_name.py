from pathlib import Path

import pytest

from d3m_ray.training.model_name import name_of_folder


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("my-model", "my-model-0123abcd"),
        ("my-model/model", "my-model-model-0123abcd"),
        ("my-model/Checkpoint-1500", "my-model-Checkpoint-1500-0123abcd"),
        ("run7/output/best_model", "run7-output-best_model-0123abcd"),
        (f"models--org--small/snapshots/{'a1' * 20}", "models--org--small-0123abcd"),
        ("models/bert-tiny/", "bert-tiny-0123abcd"),
        ("bert-tiny/model/../model", "bert-tiny-model-0123abcd"),
    ],
)
def test_a_generic_folder_is_named_with_those_above_it(folder: str, name: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    assert name_of_folder(tmp_path / folder, "0123abcd4567") == name


def test_a_link_is_the_folder_that_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "bert-tiny").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "bert-tiny")
    assert name_of_folder(tmp_path / "model", "0123abcd4567") == "bert-tiny-0123abcd"
