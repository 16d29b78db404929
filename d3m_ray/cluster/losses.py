"""Says, once each, which workers and machines a run loses, and what they were at."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from d3m_ray.cluster.news import Death, News
from d3m_ray.trials.engine import Lost, OnLost

HELD_SECONDS = 30.0  # at most, before a death is told alone: Ray takes so long to see that a whole machine is gone


@dataclass(eq=False)
class Losses:
    """What a run has lost so far; `on_lost` is told of each worker or machine when it is known which of the two it is.

    A process dies with its machine before Ray knows that the machine is gone. So a death is held until its worker has
    another process, or the machine is gone, or it has waited long enough.
    """

    on_lost: OnLost
    _machines: Mapping[str, str] = field(default_factory=dict)  # at the last look
    _num_seen: int = 0
    _held: list[tuple[Death, float]] = field(default_factory=list)  # with the time at which each was seen
    _gone: set[str] = field(default_factory=set)  # ids of machines
    _num_slots: int = 0

    def look(self, news: News, machines: Mapping[str, str], num_slots: int) -> None:
        """Tell what has been lost, given the address of each machine that may have workers, by its id.

        These are to be asked for after the news: a worker that begins again elsewhere does so when its machine is gone.
        """
        now, self._num_slots = time.monotonic(), num_slots
        self._held += [(death, now) for death in news.deaths[self._num_seen :]]
        self._num_seen = len(news.deaths)
        for node in self._machines.keys() - machines.keys() - news.refusals.keys():
            self._lose_machine(node, news)
        self._machines = machines
        self._held = [(death, since) for death, since in self._held if death.duty.life.node not in self._gone]
        for death, since in list(self._held):
            duty = news.duties.get(death.number)
            if duty is None or duty.life != death.duty.life or now - since > HELD_SECONDS:
                self._tell(death)

    def end(self) -> None:
        """Tell what was held: the run is over."""
        for death, _ in list(self._held):
            self._tell(death)

    def _lose_machine(self, node: str, news: News) -> None:
        self._gone.add(node)
        of_dead = [death.duty for death, _ in self._held if death.duty.life.node == node]
        of_living = [duty for duty in news.duties.values() if duty.life.node == node and duty not in of_dead]
        at = tuple(duty.at for duty in (*of_dead, *of_living) if duty.at)
        self.on_lost(Lost(self._machines[node], None, at, self._num_slots))

    def _tell(self, death: Death) -> None:
        self._held = [(held, since) for held, since in self._held if held is not death]
        at = (death.duty.at,) if death.duty.at else ()
        name = f"worker {death.number + 1}"
        self.on_lost(Lost(death.duty.life.address, name, at, self._num_slots, death.cause))
