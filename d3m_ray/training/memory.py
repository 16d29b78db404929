"""Memory that a worker process has freed, given back to the system."""

import ctypes
import gc


def give_memory_back() -> None:
    """Collect what nothing refers to, and return what was freed to the system: a worker outlives its fits and passes.

    A model and its hooks refer to each other, as an optimiser and its schedule do, so they are freed by the collector
    alone, which small numbers of large objects do not call. glibc keeps what is freed in an arena for each thread, and
    Tune runs each fit in a new thread: a worker would grow by a gigabyte with some of its fits.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
