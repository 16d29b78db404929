"""What installed packages add: the modules that they name under the entry point group `d3m_ray`, imported once."""

from functools import cache
from importlib.metadata import entry_points

GROUP = "d3m_ray"


@cache
def load_plugins() -> tuple[str, ...]:
    """Import each module of the group, which registers what it adds; a line for each that could not be imported.

    Whoever looks up a method, an arm, a recipe or a corpus by its name calls this first.
    """
    broken = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            point.load()
        except (Exception, SystemExit) as error:  # whatever it is: the others, and what is built in, still serve
            told = " ".join(str(error).split())
            broken.append(f"the plug-in {point.name} ({point.value}) is left out: {type(error).__name__}: {told}")
    return tuple(broken)
