"""Made-up experiments that readers of the store must get right: many groups, three labels, names as odd as users'."""

from made_up_store import MadeUp

ODD_GROUPS = (
    *("and", "and/or", "$5", "$5$", "<b>bold</b>", "[red]loud[/red]", "猫と犬", "a" * 200, "x_y", "x y", "=1+1", "50%"),
    *("'quoted'", '"twice"', "comma, semicolon;", "back\\slash", "ß", "None", "nan", "zebra"),
)
ODD = MadeUp(
    name="odd-1a2b3c4d",
    groups=ODD_GROUPS,
    label_names=("kind", "so/so", "<i>rude"),
    methods=("trak", "ekfac", "random"),
    rules={"balanced": (12, "erm"), "group_dro": (0, "group_dro")},
    numbers=(5, 10),
    seeds=(0, 1),
    num_train=120,
    num_val=120,
    num_test=180,
)
SMALL = MadeUp(
    numbers=(10, 20), seeds=(0, 1, 2), num_train=90, num_val=80, num_test=160, rules={"balanced": (12, "erm")}
)
