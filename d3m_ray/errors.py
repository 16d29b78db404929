"""The error that a command shows without a traceback."""


class InputError(ValueError):
    """What the user gave breaks a rule; the message states the rule, what was received, and the mend."""
