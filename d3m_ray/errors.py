"""The errors that a command shows in one line, without a traceback."""


class InputError(Exception):
    """What the user gave breaks a rule; the message states the rule, what was received, and the fix."""


class RunError(Exception):
    """What was asked for is right and could not be done; the message says what failed, and what to do."""
