"""Memory that a worker process has freed: kept from one training step to the next, given back after a fit."""

import ctypes
import gc

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_LARGEST_KEPT = 1 << 30  # bytes


def keep_freed_memory() -> None:
    """Have this process keep what it frees for what it allocates next, up to `give_memory_back`.

    Every training step allocates and frees as much, the gradient of the words' embeddings in one piece. glibc returns
    large pieces to the system at once, which fills them with zeros when they are asked for again: 4% of a step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _LARGEST_KEPT)
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)


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
