from d3m_ray.analysis.figures.lettering import (
    MAX_NAME_INCHES,
    SUBSTITUTE,
    key_lines,
    legible,
    shortened,
    text_inches,
    wrapped,
)


def test_a_short_name_stands_as_it_was_typed() -> None:
    names = ["$x_1^2$", "<b>", "under_score", r"back\slash"]
    assert list(shortened(names).items()) == list(zip(names, names, strict=True))
    assert key_lines(shortened(names)) == []


def test_a_long_name_ends_in_a_number_that_the_key_explains() -> None:
    long = "a name that goes on " * 15
    labels = shortened(["ant", long, f"{long}again"])
    assert labels["ant"] == "ant"
    assert labels[long].endswith("… 1")
    assert labels[f"{long}again"].endswith("… 2"), "two names that begin alike are told apart"
    assert max(map(text_inches, labels.values())) <= MAX_NAME_INCHES
    assert key_lines(labels) == [f"{label}: {name}" for name, label in list(labels.items())[1:]]


def test_the_key_ends_somewhere() -> None:
    ((line,)) = key_lines(shortened(["x" * 5000]))
    assert len(line) < 500
    assert "5000 characters" in line


def test_what_no_font_has_is_a_box_and_names_stay_apart() -> None:
    first, second = chr(0xE000), chr(0xE001)  # of a private area, which no font has
    assert legible(f"a{first}\nb") == f"a{SUBSTITUTE} b"
    labels = shortened([first, second])
    assert len(set(labels.values())) == 2
    assert key_lines(labels) == [f"{labels[first]}: {SUBSTITUTE} ({SUBSTITUTE}: U+E000)",
                                 f"{labels[second]}: {SUBSTITUTE} ({SUBSTITUTE}: U+E001)"]  # fmt: skip


def test_a_name_that_is_another_ones_label_is_not_taken_for_it() -> None:
    long = "a name that goes on " * 15
    (label,) = shortened([long]).values()
    assert len(set(shortened([long, label]).values())) == 2
    assert len(set(shortened([label, long]).values())) == 2


def test_text_is_wrapped_between_words_or_within_a_long_one() -> None:
    lines = wrapped("one two three " + "x" * 200, 2.0)
    assert all(text_inches(line) <= 2.0 for line in lines)
    assert "".join("".join(lines).split()) == "onetwothree" + "x" * 200
    assert lines[0] == "one two three"
