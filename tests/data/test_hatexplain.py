import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from d3m_ray.data.checks import DataError
from d3m_ray.data.corpora import load_splits
from d3m_ray.data.hatexplain import HUB_LABELS, HUB_NAME, HUB_REVISION, HUB_SPLITS, Hatexplain, load_hatexplain
from d3m_ray.errors import InputError
from d3m_ray.records import Examples, Splits

Posts = dict[str, dict[str, object]]
WriteFolder = Callable[[Posts], Path]
MakePost = Callable[..., dict[str, object]]
MakePosts = Callable[..., Posts]
OPTIONS = Hatexplain(groups=("Ant", "Bee"), reduced_groups=("Ant",))


def cells(splits: Splits, examples: Examples) -> Counter[tuple[str, int]]:
    return Counter(
        (splits.group_names[g], int(label)) for g, label in zip(examples.groups, examples.labels, strict=True)
    )


def test_every_cell_has_its_size(write_hatexplain: WriteFolder, make_posts: MakePosts) -> None:
    posts = make_posts(12, OPTIONS.groups)
    del posts["train-Bee-normal-3"], posts["train-Bee-normal-4"], posts["test-Ant-normal-0"]
    splits = load_hatexplain(OPTIONS, write_hatexplain(posts))
    assert cells(splits, splits.train) == {("Ant", 0): 2, ("Ant", 1): 10, ("Bee", 0): 10, ("Bee", 1): 10}
    assert cells(splits, splits.val) == {("Ant", 0): 3, ("Ant", 1): 12, ("Bee", 0): 12, ("Bee", 1): 12}
    assert cells(splits, splits.test) == {("Ant", 0): 11, ("Ant", 1): 11, ("Bee", 0): 11, ("Bee", 1): 11}
    for examples in splits.by_name().values():
        for i, example_id in enumerate(examples.example_ids):
            group = splits.group_names[examples.groups[i]]
            assert example_id.startswith(f"{examples.split}-{group}-{('normal', 'offensive')[examples.labels[i]]}-")
            assert example_id.endswith(f"/{group}")
            assert f"the {group} parade of {examples.split} " in examples.texts[i]
    assert splits.num_dropped == {}


def test_the_reduced_cell_is_never_more_than_there_is(write_hatexplain: WriteFolder, make_posts: MakePosts) -> None:
    posts = make_posts(12, OPTIONS.groups)
    for row in range(11):
        del posts[f"train-Ant-normal-{row}"]
    splits = load_hatexplain(OPTIONS, write_hatexplain(posts))
    assert cells(splits, splits.train) == {("Ant", 0): 1, ("Ant", 1): 4, ("Bee", 0): 4, ("Bee", 1): 4}


def test_a_post_of_two_groups_stands_once_in_train_under_the_rarer_and_under_both_elsewhere(
    write_hatexplain: WriteFolder, make_posts: MakePosts, make_post: MakePost
) -> None:
    posts = make_posts(4, OPTIONS.groups)
    del posts["train-Bee-offensive-0"]  # so that every row of train is drawn
    for split in ("val", "test"):
        del posts[f"{split}-Ant-offensive-0"], posts[f"{split}-Bee-offensive-0"]
    for split in ("train", "val", "test"):
        both = make_post(f"two parades of {split}", ["offensive"] * 3, [["Ant", "Bee"]] * 3)
        posts |= {f"{split}-both": both}
    options = Hatexplain(groups=OPTIONS.groups, reduced_groups=())
    frames = load_hatexplain(options, write_hatexplain(posts)).by_name()
    of_both = {name: [i for i in e.example_ids if "-both/" in i] for name, e in frames.items()}
    assert of_both["train"] == ["train-both/Bee"]
    for split in ("val", "test"):
        assert sorted(of_both[split]) == [f"{split}-both/Ant", f"{split}-both/Bee"]


def test_the_seed_decides_and_nothing_else(write_hatexplain: WriteFolder, make_posts: MakePosts) -> None:
    folder = write_hatexplain(make_posts(12, OPTIONS.groups))
    first = load_hatexplain(OPTIONS, folder)
    assert load_hatexplain(OPTIONS, folder).content_hash() == first.content_hash()
    other = Hatexplain(groups=("Ant", "Bee"), reduced_groups=("Ant",), seed=1)
    assert load_hatexplain(other, folder).content_hash() != first.content_hash()


@pytest.mark.parametrize(
    ("labels", "targets", "groups"),
    [
        (["hatespeech", "normal", "offensive"], [["Ant"]] * 3, {}),
        (["hatespeech", "hatespeech", "normal"], [["Ant"]] * 3, {"Ant": 1}),
        (["normal", "offensive", "offensive"], [["Ant"], ["Ant"], ["Bee"]], {"Ant": 1}),
        (["normal", "normal", "offensive"], [["Ant", "Bee"], ["Bee", "Ant"], []], {"Ant": 0, "Bee": 0}),
        (["normal", "normal", "normal"], [["Ant", "Ant"], ["Bee"], ["None"]], {}),
    ],
    ids=["no majority", "hatespeech", "offensive", "two groups", "one vote each"],
)
def test_votes_decide_label_and_groups(
    write_hatexplain: WriteFolder,
    make_posts: MakePosts,
    make_post: MakePost,
    labels: list[str],
    targets: list[list[str]],
    groups: dict[str, int],
) -> None:
    options = Hatexplain(groups=("Ant", "Bee"), reduced_groups=())
    posts = make_posts(1, options.groups) | {"val-new": make_post("a new kite", labels, targets)}
    for group, label in groups.items():  # the new post is then the only one of its cell
        del posts[f"val-{group}-{('normal', 'offensive')[label]}-0"]
    splits = load_hatexplain(options, write_hatexplain(posts))
    found = {
        splits.group_names[splits.val.groups[i]]: int(splits.val.labels[i])
        for i, text in enumerate(splits.val.texts)
        if text == "a new kite"
    }
    assert found == groups
    assert splits.num_dropped == ({"post without a majority label": 1} if len(set(labels)) == 3 else {})


def test_repeated_and_leaked_posts_are_dropped_and_counted(
    write_hatexplain: WriteFolder, make_posts: MakePosts, make_post: MakePost
) -> None:
    posts = make_posts(8, OPTIONS.groups)

    def copy(post_id: str, of: str) -> None:
        text = " ".join(posts[of]["post_tokens"]).upper()  # type: ignore[arg-type]
        posts[post_id] = make_post(text, ["normal"] * 3, [["Bee"]] * 3)

    copy("train-repeat", of="train-Bee-normal-0")
    copy("train-leak-val", of="val-Bee-normal-0")
    copy("train-leak-test", of="test-Ant-normal-0")
    copy("val-leak-test", of="test-Bee-normal-0")
    posts["val-blank"] = make_post("", ["normal"] * 3, [["Bee"]] * 3)
    posts["stray"] = make_post("in no division", ["normal"] * 3, [["Bee"]] * 3)
    splits = load_hatexplain(OPTIONS, write_hatexplain(posts))
    assert splits.num_dropped == {
        "post in no division": 1,
        "post without text": 1,
        "train post repeats another": 1,
        "train text also in test": 1,
        "train text also in val": 1,
        "val text also in test": 1,
    }


def test_the_hub_gives_what_the_files_give(
    write_hatexplain: WriteFolder, make_posts: MakePosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    posts = make_posts(8, OPTIONS.groups)
    expected = load_hatexplain(OPTIONS, write_hatexplain(posts)).content_hash()

    def row(post_id: str) -> dict[str, object]:
        annotators: list[dict[str, object]] = posts[post_id]["annotators"]  # type: ignore[assignment]
        columns = {key: [annotator[key] for annotator in annotators] for key in ("label", "annotator_id", "target")}
        columns["label"] = [HUB_LABELS.index(str(label)) for label in columns["label"]]
        return {"id": post_id, "annotators": columns, "rationales": [[0]], "post_tokens": posts[post_id]["post_tokens"]}

    def from_hub(name: str, configuration: str | None, revision: str | None) -> datasets.DatasetDict:
        assert (name, configuration, revision) == (HUB_NAME, None, HUB_REVISION)
        rows = {hub: [row(i) for i in posts if i.startswith(f"{split}-")] for split, hub in HUB_SPLITS.items()}
        return datasets.DatasetDict({hub: datasets.Dataset.from_list(of_split) for hub, of_split in rows.items()})

    monkeypatch.setattr(datasets, "load_dataset", from_hub)
    assert load_splits(OPTIONS).content_hash() == expected


def test_other_groups_are_refused_with_those_that_there_are(
    write_hatexplain: WriteFolder, make_posts: MakePosts
) -> None:
    folder = write_hatexplain(make_posts(4, OPTIONS.groups))
    with pytest.raises(DataError, match=r"--groups are of Ant, Bee, Other; received Cat"):
        load_hatexplain(Hatexplain(groups=("Ant", "Cat"), reduced_groups=()), folder)
    with pytest.raises(DataError, match=r"Other has none of label 0.*leave it out of --groups"):
        load_hatexplain(Hatexplain(groups=("Ant", "Other"), reduced_groups=()), folder)


def test_a_broken_folder_is_one_clear_error(
    write_hatexplain: WriteFolder, make_posts: MakePosts, make_post: MakePost
) -> None:
    posts = make_posts(2, OPTIONS.groups)
    folder = write_hatexplain(posts | {"val-odd": make_post("a kite", ["rude"] * 3, [["Ant"]] * 3)})
    with pytest.raises(DataError, match=r"dataset\.json, post val-odd: label is one of .*received 'rude'"):
        load_hatexplain(OPTIONS, folder)
    write_hatexplain(posts | {"val-odd": {"annotators": []}})
    with pytest.raises(DataError, match=r"post val-odd: post_tokens is a list of strings .*, received None"):
        load_hatexplain(OPTIONS, folder)
    write_hatexplain(posts)
    divisions = folder / "post_id_divisions.json"
    divided = json.loads(divisions.read_text())
    for change, part in (
        ({"val": [*divided["val"], "val-gone"]}, "'val-gone' of val does not"),
        ({"val": [*divided["val"], divided["train"][0]]}, "in train and val"),
        ({"val": []}, "those of val are missing"),
    ):
        divisions.write_text(json.dumps(divided | change))
        with pytest.raises(DataError, match=rf"post_id_divisions\.json: .*{part}"):
            load_hatexplain(OPTIONS, folder)
    divisions.write_text("{")
    with pytest.raises(DataError, match=r"post_id_divisions\.json: not readable as JSON"):
        load_hatexplain(OPTIONS, folder)
    divisions.unlink()
    with pytest.raises(DataError, match=r"post_id_divisions\.json missing"):
        load_hatexplain(OPTIONS, folder)


@pytest.mark.parametrize(
    "wrong",
    [{"groups": ()}, {"groups": ("African", "African")}, {"reduced_groups": ("Ant",)}, {"min_votes": 4}, {"seed": -1}],
    ids=["no group", "a group twice", "no such group", "votes", "seed"],
)
def test_options_are_checked(wrong: dict[str, tuple[str, ...] | int]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(wrong)).replace('_', '-')}"):
        Hatexplain(**wrong)  # type: ignore[arg-type]


def test_the_real_posts_are_read(test_data_dir: Path) -> None:
    splits = load_splits(Hatexplain(), test_data_dir / "hatexplain")
    assert splits.group_names == ("African", "Islam", "Refugee", "Women")
    assert len(splits.train) > len(splits.val) > 0
    for examples in (splits.train, splits.val):
        counts = cells(splits, examples)
        whole = counts["Women", 0]
        assert counts.pop(("African", 0)) == max(1, whole // 4)
        assert set(counts.values()) == {whole}
    assert len(set(cells(splits, splits.test).values())) == 1
