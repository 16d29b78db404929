"""How the workers fare, as the dispatcher tells the driver: where each process is, what it is at, which have died."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Life:
    """One process of a worker, and the machine that it is on."""

    name: str
    """Of no other process."""
    node: str
    """The machine's id."""
    address: str


@dataclass(frozen=True)
class Duty:
    """What a worker is at, in words; empty where it waits for work."""

    life: Life
    at: str = ""


@dataclass(frozen=True)
class Death:
    """A process that ended, or that no call reaches, without being told to end."""

    number: int
    """Its worker's."""
    duty: Duty
    cause: str = ""
    """Where it is known."""


@dataclass(frozen=True)
class News:
    """How the workers fare."""

    num_workers: int
    """Of all that were added, without those that are lost."""
    living: frozenset[int]
    """The numbers of those that have a process."""
    num_waiting: int
    """Fits and loans that no worker has taken, at most: some may be over."""
    refusals: Mapping[str, str]
    """By the id of each machine that lost a worker: its address, and why it is not to take part."""
    cause: str
    """Where no worker lives: who else is on the cluster."""
    duties: Mapping[int, Duty]
    """By their numbers, of the workers that have begun: the last process of each, and what it is, or was, at."""
    deaths: tuple[Death, ...]
    """All so far, in the order in which they were noticed."""
