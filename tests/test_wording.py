"""Counts in words."""

from d3m_ray.wording import counted


def test_one_is_not_many() -> None:
    assert [counted(number, "trial") for number in (0, 1, 2, 1234)] == [
        "0 trials",
        "1 trial",
        "2 trials",
        "1,234 trials",
    ]
    assert [counted(number, "query", "queries") for number in (1, 2)] == ["1 query", "2 queries"]
