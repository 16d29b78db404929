"""Counts in words, as messages, captions and pages show them."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, `1 trial` or `1,234 trials`; `plural` where that is more than an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
