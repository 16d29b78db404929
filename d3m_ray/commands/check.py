"""The command `check`: every file of a store read, what is damaged or missing named, and how it is recomputed."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from d3m_ray.commands.terminal import EXIT_FAILED, on_standard_output
from d3m_ray.store.check import StoreCheck
from d3m_ray.store.store import Store
from d3m_ray.waiting import announced
from d3m_ray.wording import counted


def check_store(store: str | Path | Store, repair: bool = False) -> StoreCheck:
    """Read every file of a store, and say which are damaged and which are missing that stored results rest on.

    With `repair`, damaged files are deleted; the sweep that they belong to then recomputes them. Without it nothing is
    changed. Raises StoreError where the store is not there, cannot be read or, to repair it, cannot be written.
    """
    opened = store if isinstance(store, Store) else Store(store)
    return (opened if repair else opened.reader()).check(repair)


def check(store: Store, repair: bool) -> int:
    """Print what `check_store` finds; the exit status: 0 where the store is whole, or made so as far as files go."""
    with announced(f"every file of {store} to be read"):
        found = check_store(store, repair)
    with on_standard_output():
        for line in _lines(store, found, repair):
            Console().print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)
    is_repaired = repair and found.num_deleted == len(found.damaged) and not found.foreign
    return 0 if found.is_whole or is_repaired else EXIT_FAILED


def _lines(store: Store, found: StoreCheck, repair: bool) -> Iterator[str]:
    for fault in found.damaged:
        yield f"damaged: {store}/{fault.path} ({fault.reason}); the same sweep, run again, {fault.recomputed}"
    for fault in found.missing:
        of = ", ".join(fault.experiments)
        yield f"missing: {store}/{fault.path} ({fault.reason}, of {of}); the same sweep, run again, {fault.recomputed}"
    for fault in found.foreign:
        yield f"unreadable: {store}/{fault.path} ({fault.reason}); left as it is"
    if found.is_whole:
        yield f"{store}: {counted(found.num_files, 'file')} read, all whole"
        return
    counts = [
        counted(len(of), f"{kind} file")
        for kind, of in (("damaged", found.damaged), ("missing", found.missing), ("unreadable", found.foreign))
        if of
    ]
    deleted = f"; {found.num_deleted} of the damaged ones deleted" if repair else ""
    yield f"{store}: {counted(found.num_files, 'file')} read, {', '.join(counts)}{deleted}"
    if found.damaged and not repair:
        command = shlex.join(["d3m-ray", "check", str(store), "--repair"])
        yield f"{command} deletes the damaged files, nothing else"
    gone = {fault.path for fault in (*found.damaged, *found.missing)}
    for name in found.experiments:
        record = f"experiments/{name}.json"
        command = (
            "" if record in gone else f", as by d3m-ray run {shlex.quote(f'{store}/{record}')} (of an LDS, d3m-ray lds)"
        )
        yield f"{name}: its sweep, run again{command}, recomputes what is gone, and nothing else"
