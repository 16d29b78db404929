"""The errors that a command shows in one line, without a traceback, and that line for any other."""

MAX_REASON_CHARACTERS = 1000  # of a line; the traceback has all of it


class InputError(Exception):
    """What the user gave breaks a rule; the message states the rule, what was received, and the fix."""


class RunError(Exception):
    """What was asked for is right and could not be done; the message says what failed, and what to do."""


class EngineLostError(RunError):
    """What hands out the work has died, and nothing else; its argument says why.

    Whoever begins again from what is stored gets on.
    """

    @property
    def what(self) -> str:
        """What has happened, without what to do."""
        return f"what hands out the work has died ({self.args[0]})"

    def __str__(self) -> str:
        return f"{self.what}: the same command goes on with what is not stored"


def reason(error: BaseException) -> str:
    """Why something failed, in one line: the kind of the error and the first line of what it says.

    An error of another process comes wrapped, with the error itself as its `cause`.
    """
    error = getattr(error, "cause", None) or error
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if len(said) > MAX_REASON_CHARACTERS:  # some say the values that they were given, whole
        said = f"{said[:MAX_REASON_CHARACTERS]}..."
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
