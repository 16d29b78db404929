import json
import os
from pathlib import Path

import pytest

from d3m_ray.training.model_name import TINY_MODEL, files_of_model, name_of_folder


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


def made_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert", "_name_or_path": "/somewhere/else"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_models_files_are_known_by_their_content_and_place(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "one")
    first = files_of_model(str(folder))
    assert first is not None
    assert first[0::2] == (str(folder), *first[2::2])
    assert first[1::2] == ("config.json", "model.safetensors")
    os.utime(folder / "model.safetensors", (0, 0))
    assert files_of_model(f"{folder}/../one/") == first, "neither its time nor its spelling counts"
    (folder / "model.safetensors").write_bytes(b"weighty")
    changed = files_of_model(str(folder))
    (folder / "vocab.txt").write_text("red")
    assert len({first, changed, files_of_model(str(folder)), files_of_model(str(made_folder(tmp_path / "two")))}) == 4


def test_files_that_are_not_all_of_a_model_are_not_taken_for_it(tmp_path: Path) -> None:
    assert files_of_model("Tiny") == (TINY_MODEL,)
    assert files_of_model("google-bert/bert-base-uncased") is None, "the hub may have another by now"
    adapter = made_folder(tmp_path / "adapter")
    (adapter / "adapter_config.json").write_text("{}")
    assert files_of_model(str(adapter)) is None
    pointing = made_folder(tmp_path / "pointing")
    vocabulary = tmp_path / "vocab.txt"
    (pointing / "tokenizer_config.json").write_text(json.dumps({"vocab_file": str(vocabulary)}))
    assert files_of_model(str(pointing)) is not None, "nothing lies there"
    vocabulary.write_text("red")
    assert files_of_model(str(pointing)) is None
    sharded = made_folder(tmp_path / "sharded")
    index = sharded / "model.safetensors.index.json"
    for shard, is_all in (("model-1-of-2.safetensors", True), ("parts/1.safetensors", False), ("../1.bin", False)):
        index.write_text(json.dumps({"metadata": {"total_size": 9}, "weight_map": {"bert.weight": shard}}))
        assert (files_of_model(str(sharded)) is not None) == is_all
    unreadable = made_folder(tmp_path / "unreadable")
    (unreadable / "config.json").write_bytes(b"\xff")
    assert files_of_model(str(unreadable)) is None
