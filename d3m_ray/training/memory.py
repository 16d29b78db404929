"""Memory of a worker process: what stays in it, and what it has freed, given back to the system."""

import ctypes
import gc
from collections.abc import Callable

_forgetters: list[Callable[[], None]] = []  # how each kind of work lets go of the model that it keeps in a process


def let_go_with(forget: Callable[[], None]) -> None:
    """Have `let_go_of_models` call this too. Told once by each module that keeps a model between calls."""
    _forgetters.append(forget)


def let_go_of_models() -> None:
    """Keep no model of any kind of work in this process, and give its memory back."""
    for forget in _forgetters:
        forget()
    give_memory_back()


def keep_what_is_loaded() -> None:
    """Have the collector pass over all that is there now: the modules, which a worker keeps to its end.

    Call it once, before the first model: nothing that is kept is ever collected. Libraries are half a million objects,
    and looking at each takes a quarter of a second after every fit.
    """
    gc.collect()
    gc.freeze()


def give_memory_back() -> None:
    """Collect what nothing refers to, and return what was freed to the system: a worker outlives its fits and passes.

    A model and its hooks refer to each other, as an optimiser and its schedule do, so they are freed by the collector
    alone, which small numbers of large objects do not call. glibc keeps what is freed in the arena of its thread.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
