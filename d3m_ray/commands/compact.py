"""The command `compact`: one file for the rows of a table's many, which readers then open instead."""

from pathlib import Path

from rich.console import Console

from d3m_ray.commands.terminal import on_standard_output, say
from d3m_ray.store.compacted import Compaction, compacted_file
from d3m_ray.store.store import Store
from d3m_ray.waiting import Say, announced
from d3m_ray.wording import counted


def compact_store(store: str | Path | Store, say: Say = say) -> list[Compaction]:
    """Copy the rows of each table of many small files into one file, so that reading them all takes a fraction.

    Every reader of this package uses the copy for the results that did not change since, and opens the others; no
    result is moved or deleted, and a sweep may run beside. Damaged files are told and left out. Returns what was copied
    of each table. Raises StoreError where the store is not there, or cannot be read or written.
    """
    return (store if isinstance(store, Store) else Store(store)).compact(say)


def compact(store: Store) -> int:
    """Print what `compact_store` did; the exit status."""
    with announced(f"the tables of {store} to be copied", say):
        done = compact_store(store)
    with on_standard_output():
        for table in done:
            line = (
                f"{store}/{compacted_file(table.table)}: {counted(table.num_files, 'file')} of {table.table} in one of "
                f"{table.num_bytes:,} bytes"
            )
            left_out = f"; {counted(table.num_left_out, 'file')} left out" if table.num_left_out else ""
            Console().print(line + left_out, highlight=False, markup=False, emoji=False, soft_wrap=True)
    return 0
