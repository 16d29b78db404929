"""The registry of methods: all that keys and flags ask of a method is known before anything that computes is loaded."""

import subprocess
import sys

from d3m_ray.attribution.registry import METHODS, flag_prefix


def test_every_method_says_what_it_scores_by_in_a_line():
    for name, method in METHODS.items():
        assert method.name == name
        assert method.scores
        assert "\n" not in method.scores
        assert not method.scores.endswith(".")


def test_the_names_are_known_without_what_computes():
    script = (
        "import sys\nfrom d3m_ray.attribution.registry import METHODS\n"
        "assert METHODS['trak'].reads and METHODS['ekfac'].version\n"
        "print(sorted({'numpy', 'torch', 'transformers', 'bm25s'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert shown.stdout == "[]\n"


def test_the_flags_of_a_method_begin_with_its_name():
    assert flag_prefix("my_length") == "my-length-"
