"""What is refused, or said, of a model and its tokenizer before anything is trained."""

import itertools
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from d3m_ray.errors import InputError
from d3m_ray.records import Examples, Splits
from d3m_ray.training.batching import tokenize
from d3m_ray.training.model import build_classifier, load_pretrained, load_weights, logits_of
from d3m_ray.training.preparation import prepare_model
from d3m_ray.training.vocabulary import check_inputs, tokenizer_hash, trim_vocabulary

TEXTS = {
    "train": ("red apple", "old green lamp", "small round blue plate", "cold pear"),
    "val": ("warm plum", "large old cup"),
    "test": ("new square chair", "blue door"),
}


def made_splits(**texts: tuple[str, ...]) -> Splits:
    """The texts above, or others, in one group."""
    splits = {}
    for name, lines in {**TEXTS, **texts}.items():
        ids = [f"{name}-{number}" for number in range(len(lines))]
        splits[name] = Examples(name, ids, lines, [number % 2 for number in range(len(lines))], [0] * len(lines))
    return Splits("made", ("all",), **splits)


def prepare(folder, splits=None, max_length=32):
    return prepare_model(str(folder), splits or made_splits(), max_length)


def set_config(folder, **options):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **options}))


# --- what goes through ------------------------------------------------------------------------------------------------


def test_a_fitting_model_is_prepared_without_a_word(model_folder):
    prepared = prepare(model_folder("bert"))
    assert prepared.warnings == ()
    assert prepared.pretrained.config["vocab_size"] < 24
    assert prepared.tokens["train"].lengths.tolist() == [4, 5, 6, 4]


@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet", "gpt2", "llama", "bart", "t5"])
def test_prepared_logits_are_those_of_the_folder(architecture, model_folder):
    folder = model_folder(architecture, pad_token_id=0)
    prepared = prepare(folder)
    loaded, tokenizer = load_pretrained(str(folder), [])
    pad_id = loaded.config["pad_token_id"]
    for name, examples in made_splits().by_name().items():
        logits = []
        for pretrained, tokens in (
            (prepared.pretrained, prepared.tokens[name]),
            (loaded, tokenize(examples, tokenizer, 32, pad_id)),
        ):
            model = build_classifier(pretrained).eval()
            load_weights(model, pretrained.weights)
            with torch.no_grad():
                logits.append(logits_of(model, tokens.batch(np.arange(len(examples)))))
        torch.testing.assert_close(*logits)


@pytest.mark.parametrize("name", ["tiny", "Tiny", "TINY"])
def test_the_tiny_model_is_found_in_any_case(name):
    assert prepare(name).pretrained.name == "tiny"


def test_a_slow_tokenizer_works_and_is_told_apart(model_folder):
    """BERTweet's has no fast counterpart."""
    folder = model_folder("roberta", words=None)
    words = [word for text in sum(TEXTS.values(), ()) for word in text.split()]
    (folder / "vocab.txt").write_text("".join(f"{word} 1\n" for word in dict.fromkeys(words)))
    (folder / "bpe.codes").write_text("r e 1\nre d</w> 1\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertweetTokenizer"}))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert not hasattr(tokenizer, "backend_tokenizer")
    letters = made_splits(train=("red red", "red", "red red red"))
    first = prepare(folder, letters)
    assert first.content_hash == prepare(folder, letters).content_hash
    before = tokenizer_hash(tokenizer)
    (folder / "bpe.codes").write_text("r e 1\nre d</w> 1\na p 1\n")
    assert tokenizer_hash(AutoTokenizer.from_pretrained(folder)) != before


# --- loading ----------------------------------------------------------------------------------------------------------


def damage_half(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def damage_header(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)


def damage_config(folder):
    (folder / "config.json").write_text("{")


def lose_weights(folder):
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("damage", [damage_half, damage_header, damage_config, lose_weights])
def test_a_damaged_folder_is_one_line(damage, model_folder):
    folder = model_folder("bert")
    damage(folder)
    with pytest.raises(InputError, match="save or download it again") as raised:
        prepare(folder)
    assert "\n" not in str(raised.value)
    assert str(folder) in str(raised.value)


def test_weights_that_are_not_finite_are_refused(model_folder):
    folder = model_folder("bert")
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"] = weights["classifier.bias"] * np.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="its weights are damaged"):
        prepare(folder)


@pytest.mark.parametrize(
    ("change", "lacking"),
    [
        ("a layer", r"bert\.encoder\.layer\.1\..* and \d+ more"),
        ("a query", r"bert\.encoder\.layer\.0\.attention\.self\.query\.weight"),
        ("more positions", r"bert\.embeddings\.position_embeddings\.weight"),
        ("more words", r"bert\.embeddings\.word_embeddings\.weight"),
        ("of another model", r"bert\.embeddings\..* and \d+ more"),
    ],
)
def test_a_body_that_is_not_whole_is_refused(change, lacking, model_folder):
    folder = model_folder("bert")
    weights = load_file(folder / "model.safetensors")
    if change == "a layer":
        weights = {name: value for name, value in weights.items() if "layer.1" not in name}
    elif change == "a query":
        weights.pop("bert.encoder.layer.0.attention.self.query.weight")
    elif change == "of another model":
        weights = {name.replace("bert.", "robert."): value for name, value in weights.items()}
    else:
        options = {"more positions": {"max_position_embeddings": 80}, "more words": {"vocab_size": 101}}
        set_config(folder, **options[change])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"has none that fit config\.json for {lacking}, which would be drawn"):
        prepare(folder)


def test_a_head_and_a_pooler_may_be_new(model_folder):
    folder = model_folder("bert")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "pooler" not in name and "classifier" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    prepared = prepare(folder)
    assert prepared.pretrained.new_modules == ("bert.pooler.dense", "classifier")
    assert prepared.warnings == ()


def test_layers_that_config_leaves_unread_are_said(model_folder):
    folder = model_folder("bert")
    set_config(folder, num_hidden_layers=1)
    [warning] = prepare(folder).warnings
    assert "holds 16 tensors that config.json leaves unread, such as bert.encoder.layer.1." in warning


def test_code_of_its_own_is_refused_without_a_question(model_folder, monkeypatch):
    folder = model_folder("bert")
    set_config(folder, model_type="homemade", auto_map={"AutoConfig": "made.MadeConfig"})
    (folder / "made.py").write_text("raise SystemExit('was run')\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on stdin"))
    with pytest.raises(InputError, match="brings code of its own") as raised:
        prepare(folder)
    assert "trust_remote_code" not in str(raised.value)


@pytest.mark.parametrize("name", ["./absent", "/absent/folder", "~/absent", "a/b/c"])
def test_a_path_is_never_looked_for_on_the_hub(name, monkeypatch):
    monkeypatch.setattr("d3m_ray.training.model.AutoConfig", None)
    with pytest.raises(InputError, match="which is no folder"):
        load_pretrained(name, [])


def test_a_folder_may_be_called_nearly_tiny(model_folder, monkeypatch, tmp_path):
    model_folder("bert").rename(tmp_path / "tiny1")
    monkeypatch.chdir(tmp_path)
    assert prepare("tiny1").pretrained.name.startswith("tiny1")


@pytest.mark.parametrize("name", ["tinny", "Tin", "tiny1"])
def test_a_name_near_tiny_is_asked_about_before_the_hub_is(name, monkeypatch):
    monkeypatch.setattr("d3m_ray.training.model.AutoConfig", None)
    with pytest.raises(InputError, match="did you mean 'tiny'"):
        load_pretrained(name, [])


# --- tokenizers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["bert", "roberta", "gpt2", "t5", "llama"])
def test_a_folder_without_a_tokenizer_is_refused(architecture, model_folder):
    with pytest.raises(InputError, match=r"tokenizer with the words|cannot be read") as raised:
        prepare(model_folder(architecture, words=None))
    assert "\n" not in str(raised.value)


def test_unknown_words_are_said_with_their_share(model_folder):
    splits = made_splits(train=("red apple zebra old green lamp", "small round blue plate", "cold pear new door cup"))
    [warning] = prepare(model_folder("bert"), splits).warnings
    assert warning.startswith("7% of the train tokens are unknown")


def test_texts_that_are_cut_are_said_with_their_share(model_folder):
    splits = made_splits(train=("red apple", "red apple old green lamp", "small plate", "cold pear new door cup"))
    [warning] = prepare(model_folder("bert"), splits, max_length=6).warnings
    assert warning == "50% of the texts of train reach --max-length 6: what stands beyond is not read"


def test_mostly_unknown_words_are_refused(model_folder):
    splits = made_splits(train=("zebra lion", "otter heron fox", "red"))
    with pytest.raises(InputError, match="83% of the train tokens are unknown"):
        prepare(model_folder("bert"), splits)


def test_ids_beyond_the_table_are_refused(model_folder):
    with pytest.raises(InputError, match=r"vocabulary size, 12 for bert-0\S*, and its tokenizer gives 2\d"):
        prepare(model_folder("bert", vocab_size=12))


def test_a_text_without_tokens_is_refused(model_folder):
    folder = model_folder("gpt2")
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "post_processor": None}))
    with pytest.raises(InputError, match="makes none of 1 text of val: leave those out"):
        prepare(folder, made_splits(val=("red", " ")))


def test_what_a_tokenizer_gives_besides_ids_is_not_dropped(model_folder):
    folder = model_folder("bert")
    path = folder / "tokenizer.json"
    made = json.loads(path.read_text())
    single = [{"SpecialToken": {"id": "[CLS]", "type_id": 2}}, {"Sequence": {"id": "A", "type_id": 0}}]
    tokens = {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}}
    made["post_processor"] = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": tokens}
    path.write_text(json.dumps(made))
    tokenizer_config = json.loads((folder / "tokenizer_config.json").read_text())
    names = ["input_ids", "token_type_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer_config, "model_input_names": names}))
    with pytest.raises(InputError, match="gives token_type_ids besides"):
        prepare(folder)


def test_an_end_token_inside_a_text_is_refused_where_ends_are_counted(model_folder):
    folder = model_folder("bart")
    prepare(folder)
    with pytest.raises(InputError, match=r"most have 1, others the text 1 of val"):
        prepare(folder, made_splits(val=("red", "green [SEP] apple")))


def test_a_model_stored_in_low_precision_is_float32(model_folder):
    folder = model_folder("bert")
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    pretrained = prepare(folder).pretrained
    assert build_classifier(pretrained).dtype == torch.float32
    assert {value.dtype for value in pretrained.weights.values()} == {np.dtype(np.float32)}


# --- padding ----------------------------------------------------------------------------------------------------------


def test_the_models_padding_comes_first(model_folder):
    folder = model_folder("gpt2", pad_token=None, pad_token_id=4)
    assert prepare(folder).pretrained.config["pad_token_id"] == prepare(folder).tokens["train"].pad_id
    agreeing, other = model_folder("gpt2", pad_token_id=0), model_folder("gpt2", pad_token_id=4)
    assert prepare(agreeing).tokens["train"].pad_id == 0
    assert prepare(other).tokens["train"].pad_id == 4


def test_a_model_without_padding_takes_the_tokenizers(model_folder):
    prepared = prepare(model_folder("gpt2", pad_token_id=None))
    assert prepared.pretrained.config["pad_token_id"] == prepared.tokens["train"].pad_id == 0


def test_no_padding_token_at_all_is_refused(model_folder):
    with pytest.raises(InputError, match=r"gpt2-0\S* has none in config\.json"):
        prepare(model_folder("gpt2", pad_token=None, pad_token_id=None))


@pytest.mark.parametrize(
    ("options", "token"),
    [
        ({"pad_token_id": 5}, r"'red' \(id 5; its tokenizer's is '\[PAD\]'\)"),
        ({"pad_token_id": 5, "pad_token": None}, r"'red' \(id 5; its tokenizer's is None\)"),
        ({"pad_token_id": 5, "pad_token": "red"}, r"'red' \(id 5; its tokenizer's is 'red'\)"),
        ({"pad_token_id": 3, "pad_token": "[UNK]"}, r"'\[UNK\]' \(id 3; its tokenizer's is '\[UNK\]'\)"),
    ],
)
def test_padding_that_texts_hold_is_refused(options, token, model_folder):
    splits = made_splits(train=("red apple", "square zebra", "small plate"))
    with pytest.raises(InputError, match=rf"{token}, and text [01] of train holds it, one of 1 there"):
        prepare(model_folder("gpt2", **options), splits)


def test_padding_spelled_in_a_text_is_refused(model_folder):
    splits = made_splits(train=("red apple", "green pear [PAD]", "small plate"))
    with pytest.raises(InputError, match="text 1 of train holds it"):
        prepare(model_folder("bert"), splits)


def test_padding_that_ends_every_text_is_no_word(model_folder):
    prepare(model_folder("gpt2", pad_token="[SEP]", pad_token_id=2))


def test_unknown_words_are_counted_where_their_token_has_another_role(model_folder):
    splits = made_splits(train=("zebra lion", "otter heron fox", "red"))
    with pytest.raises(InputError, match="83% of the train tokens are unknown"):
        prepare(model_folder("bert", pad_token="[UNK]"), splits)


def test_unknown_words_of_test_are_said_too(model_folder):
    splits = made_splits(test=("red zebra", "lion pear"))
    [warning] = prepare(model_folder("bert"), splits).warnings
    assert warning.startswith("50% of the test tokens are unknown")


def test_a_tokenizer_that_draws_is_refused(model_folder):
    pretrained, _ = load_pretrained(str(model_folder("bert")), [])
    ids = itertools.count()

    def drawing(texts, **_):
        return {"input_ids": [[next(ids)] for _ in texts]}

    with pytest.raises(InputError, match="draws them at random"):
        check_inputs(pretrained, drawing, ["red apple"], 8)


# --- lengths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "most"), [("bert", 40), ("roberta", 39), ("gpt2", 40), ("bart", 40), ("distilbert", 40)]
)
def test_a_length_beyond_the_positions_is_refused_with_the_most(architecture, most, model_folder):
    folder = model_folder(architecture, pad_token_id=0)
    prepare(folder, max_length=most)
    with pytest.raises(InputError, match=f"--max-length is at most {most} tokens for --model .* received {most + 1}"):
        prepare(folder, max_length=most + 1)
    with pytest.raises(InputError, match=f"at most {most} tokens"):
        prepare(folder, splits=made_splits(test=("red " * 60, "door")), max_length=50)


def test_rotary_positions_have_no_end(model_folder):
    prepare(model_folder("llama"), max_length=200)


# --- trimming ---------------------------------------------------------------------------------------------------------


def test_a_table_of_another_kind_with_as_many_rows_leaves_the_model_whole(tiny_base, made_tokens):
    pretrained = tiny_base("bert")
    config = {**pretrained.config, "type_vocab_size": pretrained.config["vocab_size"]}
    types = np.resize(pretrained.weights["bert.embeddings.token_type_embeddings.weight"], (100, 16))
    weights = {**pretrained.weights, "bert.embeddings.token_type_embeddings.weight": types}
    odd = type(pretrained)(pretrained.name, config, weights, pretrained.new_modules)
    assert trim_vocabulary(odd, {"train": made_tokens()})[0] is odd


def test_a_list_of_special_tokens_is_renumbered(tiny_base, made_tokens):
    pretrained = tiny_base("llama")
    several = type(pretrained)(
        pretrained.name, {**pretrained.config, "eos_token_id": [2, 99]}, pretrained.weights, pretrained.new_modules
    )
    trimmed, _ = trim_vocabulary(several, {"train": made_tokens(num_examples=2)})
    assert trimmed.config["vocab_size"] < 100
    assert trimmed.config["eos_token_id"] == [2, trimmed.config["vocab_size"] - 1]


@pytest.mark.parametrize("architecture", ["bart", "t5"])
def test_tied_tables_are_trimmed_together(architecture, tiny_base, made_tokens):
    pretrained, tokens = tiny_base(architecture), made_tokens(num_examples=2)
    trimmed, _ = trim_vocabulary(pretrained, {"train": tokens})
    assert trimmed.config["vocab_size"] < 100
    load_weights(build_classifier(trimmed), trimmed.weights)
