"""Workers get the oldest fit, attribution gets workers first, and no trial is answered before all have a process."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayError, RayTaskError

from d3m_ray.cluster import dispatcher as module
from d3m_ray.cluster.dispatcher import Dispatcher
from d3m_ray.cluster.news import Life
from d3m_ray.errors import InputError
from d3m_ray.store.errors import UnusableError

CONTEXT = ["a handle"]


class Method:
    """A method of an actor's handle, answered by a function that may raise."""

    def __init__(self, answer: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self._answer = answer
        self.names: list[str] = []

    def options(self, name: str = "", **_: object) -> "Method":
        self.names.append(name)
        return self

    def remote(self, *arguments: Any) -> Any:
        return asyncio.ensure_future(self._answer(*arguments))


class Worker:
    """In place of an actor: notes what it is asked for, and fails where it is told to."""

    def __init__(
        self,
        fails: dict[Any, Exception] | None = None,
        never_begins: RayError | None = None,
        place: tuple[str, str] | None = None,
    ) -> None:
        self.calls: list[Any] = []
        self.place, self.dies_idle = place, 0
        self.num_lives = 0
        self._fails, self._never_begins = fails or {}, never_begins
        self.begin, self.fit = Method(self._begin), Method(self._run)

    async def _begin(self) -> Life:
        if self.dies_idle:
            self.dies_idle -= 1
            raise ActorDiedError
        if self._never_begins is not None:
            raise self._never_begins
        return Life(f"{id(self)}, {self.num_lives}", *(self.place or ("id0", "10.0.0.0")))

    async def _run(self, context: list[Any], call: Any) -> dict[str, Any]:
        assert context == CONTEXT
        self.calls.append(call)
        await asyncio.sleep(0)
        if call in self._fails:
            raise self._fails.pop(call)
        return {"told": call}


def failed(error: Exception) -> RayTaskError:
    return RayTaskError("fit", f"a trace: {error}", error).as_instanceof_cause()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(module, "REPLACED_SECONDS", 0.001)


@pytest.fixture(autouse=True)
def ended(monkeypatch: pytest.MonkeyPatch) -> list[Worker]:
    """Which workers Ray was told to end. Those of the others that have begun live, each on a machine that it names."""
    ended: list[Worker] = []
    monkeypatch.setattr(module.ray, "kill", ended.append)
    monkeypatch.setattr(
        module, "living", lambda workers: frozenset(number for number in workers if not workers[number]._never_begins)
    )
    monkeypatch.setattr(module, "place_of", lambda worker: worker.place)
    monkeypatch.setattr(module, "who_is_there", lambda: "0 of 2 CPU free")
    return ended


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def told(dispatcher: Dispatcher, number: int, of_set: int = 1) -> dict[str, Any]:
    """What a trial is told that asks for a fit as Tune has it ask."""
    await dispatcher.begun(of_set, number)
    return await dispatcher.fit(of_set, number)


def test_no_trial_is_answered_before_all_have_a_process_while_fits_go_on():
    async def story() -> None:
        dispatcher, worker = Dispatcher(), Worker()
        await dispatcher.add(0, [worker])
        await dispatcher.expect(1, CONTEXT, list(range(4)), 2)
        first = asyncio.ensure_future(told(dispatcher, 0))
        await settled()
        assert not first.done()
        assert worker.calls == [0, 1, 2, 3], "in the order in which they will be asked for"
        assert await told(dispatcher, 1) == {"told": 1}
        assert await first == {"told": 0}
        assert [await told(dispatcher, number) for number in (2, 3)] == [{"told": 2}, {"told": 3}]
        assert await dispatcher.fit(1, 3) == {"told": 3}, "asked again by a trial whose process died"
        assert worker.calls == [0, 1, 2, 3], "none twice"

    asyncio.run(story())


def test_the_dashboard_has_the_names_of_the_fits_that_have_one():
    async def story() -> None:
        dispatcher, worker = Dispatcher(), Worker()
        await dispatcher.add(0, [worker])
        await dispatcher.expect(1, CONTEXT, [0, 1], 1, ["fit trak k=60 seed=2", "fit checkpoint k=0 seed=1"])
        await dispatcher.expect(2, CONTEXT, [2], 1)
        assert await told(dispatcher, 0, of_set=2) == {"told": 2}
        assert worker.fit.names == ["fit trak k=60 seed=2", "fit checkpoint k=0 seed=1", "fit"]
        assert repr(dispatcher) == "dispatcher"

    asyncio.run(story())


def test_a_trial_whose_process_never_starts_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.01)

    async def story() -> None:
        dispatcher = Dispatcher()
        await dispatcher.add(0, [Worker()])
        await dispatcher.expect(1, CONTEXT, [0, 1], 2)
        assert await told(dispatcher, 0) == {"told": 0}

    asyncio.run(story())


def test_fits_are_handed_out_in_the_order_of_their_sets_and_trials_are_of_use_from_their_turn():
    async def story() -> None:
        dispatcher, worker = Dispatcher(), Worker()
        for of_set, fits in ((3, ["c0"]), (1, ["a0", "a1"]), (2, ["b0"])):
            await dispatcher.expect(of_set, CONTEXT, fits, 1)
        turns = [asyncio.ensure_future(dispatcher.turn(of_set)) for of_set in (1, 2, 3)]
        begun = asyncio.ensure_future(dispatcher.begun(1, 0))
        await settled()
        assert [turn.done() for turn in turns] == [True, False, False]
        assert not begun.done()
        await dispatcher.forget(2)
        await dispatcher.add(0, [worker])
        await asyncio.gather(begun, *turns)
        assert await dispatcher.fit(1, 1) == {"told": "a1"}
        assert await told(dispatcher, 0, 3) == {"told": "c0"}
        assert worker.calls == ["a0", "a1", "c0"], "and nothing of a set that nobody waits for"

    asyncio.run(story())


def test_attribution_is_lent_a_worker_that_ends_its_fit_until_it_gives_it_back():
    async def story() -> None:
        dispatcher, workers = Dispatcher(), [Worker(), Worker()]
        await dispatcher.add(0, workers)
        lent = await dispatcher.lend(5)
        other, number = (worker for index, worker in enumerate(workers) if index != lent), lent
        await dispatcher.expect(1, CONTEXT, [0, 1, 2], 1)
        await settled()
        assert next(other).calls == [0, 1, 2]
        assert workers[number].calls == []
        also = asyncio.ensure_future(dispatcher.lend(5))
        await dispatcher.expect(2, CONTEXT, [3], 1)
        await settled()
        assert {number, also.result()} == {0, 1}, "before a fit that waits"
        never = asyncio.ensure_future(dispatcher.lend(5))
        await settled()
        assert [worker.calls for worker in workers].count([]) == 1
        await dispatcher.take_back(5)
        assert await never is None
        assert await told(dispatcher, 0, 2) == {"told": 3}
        await dispatcher.expect(3, CONTEXT, [4], 1)
        assert await told(dispatcher, 0, 3) == {"told": 4}, "by a worker that nobody keeps"

    asyncio.run(story())


def test_a_fit_says_its_error_and_the_next_one_has_another_process(monkeypatch):
    killed = []

    def kill(worker: Worker, no_restart: bool) -> None:
        assert not no_restart
        killed.append(worker)
        asyncio.get_running_loop().call_later(0.01, lambda: setattr(worker, "num_lives", worker.num_lives + 1))

    monkeypatch.setattr(module.ray, "kill", kill)

    async def story() -> None:
        dispatcher = Dispatcher()
        worker = Worker(fails={0: failed(OSError("no route"))})
        await dispatcher.add(0, [worker])
        await dispatcher.expect(1, CONTEXT, [0, 1], 1)
        with pytest.raises(OSError, match="no route"):
            await told(dispatcher, 0)
        assert await told(dispatcher, 1) == {"told": 1}
        assert (killed, worker.num_lives) == ([worker], 1)
        assert await told(dispatcher, 0) == {"told": 0}, "asked for again"
        assert (await dispatcher.news()).deaths == (), "it was told to end"

    asyncio.run(story())


def test_a_process_that_died_idle_takes_no_work_that_another_could():
    async def story() -> None:
        dispatcher, dead, other = Dispatcher(), Worker(), Worker()
        await dispatcher.add(0, [dead])
        await settled()
        dead.dies_idle = 1
        dead.begin = Method(dead._begin)
        lent = asyncio.ensure_future(dispatcher.lend(1))
        await asyncio.sleep(0)
        await dispatcher.add(1, [other])
        assert await lent in (0, 1)
        assert dead.dies_idle == 0, "it was looked at first"
        assert [(death.number, death.duty.at) for death in (await dispatcher.news()).deaths] == [(0, "")]

    asyncio.run(story())


def test_a_dead_process_costs_a_fit_one_try_and_is_told_once_with_what_it_was_at():
    async def story() -> None:
        dispatcher, worker = Dispatcher(), Worker(fails={"fit": OutOfMemoryError("no memory left")})
        await dispatcher.add(0, [worker])
        await dispatcher.expect(1, CONTEXT, ["fit"], 1, ["fit trak k=60 seed=2"])
        with pytest.raises(OutOfMemoryError):
            await told(dispatcher, 0)
        (death,) = (await dispatcher.news()).deaths
        assert (death.number, death.duty.at, death.duty.life.address) == (0, "fit trak k=60 seed=2", "10.0.0.0")
        assert death.cause == "OutOfMemoryError: no memory left"
        worker.num_lives += 1
        assert await told(dispatcher, 0) == {"told": "fit"}
        await settled()
        news = await dispatcher.news()
        assert news.deaths == (death,)
        assert [(number, duty.at) for number, duty in news.duties.items()] == [(0, "")]

    asyncio.run(story())


def test_a_lent_worker_that_dies_is_waited_for_and_one_that_may_not_take_part_again_is_lost(ended):
    async def story() -> None:
        dispatcher, workers = Dispatcher(), [Worker(), Worker(place=("id2", "10.0.0.2"))]
        await dispatcher.add(0, workers)
        assert {await dispatcher.lend(5), await dispatcher.lend(5)} == {0, 1}
        workers[0].num_lives += 1
        await dispatcher.again(0, "trak scores, shard 3/5")
        workers[1]._never_begins = failed(InputError("does not see the store"))
        with pytest.raises(InputError):
            await dispatcher.again(1, "trak scores, shard 4/5")
        news = await dispatcher.news()
        assert [(death.number, death.duty.at) for death in news.deaths] == [
            (0, "trak scores, shard 3/5"),
            (1, "trak scores, shard 4/5"),
        ]
        assert {number: duty.at for number, duty in news.duties.items()} == {0: "attribution"}
        assert (ended, news.refusals) == ([workers[1]], {"id2": "10.0.0.2: does not see the store"})
        await dispatcher.take_back(5)
        await settled()
        assert len((await dispatcher.news()).deaths) == 2
        assert ended == [workers[1]], "once"

    asyncio.run(story())


def test_what_is_asked_twice_is_done_once():
    """Ray asks again where it cannot tell whether a call has arrived."""

    async def story() -> None:
        dispatcher, worker = Dispatcher(), Worker()
        for _ in "ab":
            await dispatcher.add(0, [worker])
            await dispatcher.expect(1, CONTEXT, [0, 1], 1)
        assert [await told(dispatcher, number) for number in (0, 1)] == [{"told": 0}, {"told": 1}]
        assert worker.calls == [0, 1]

    asyncio.run(story())


def test_the_error_of_a_store_of_no_use_is_told_at_once(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_SECONDS", 100.0)

    async def story() -> None:
        dispatcher = Dispatcher()
        await dispatcher.add(0, [Worker(fails={0: failed(UnusableError("the store is full", True))})])
        await dispatcher.expect(1, CONTEXT, [0], 1)
        with pytest.raises(UnusableError):
            await asyncio.wait_for(told(dispatcher, 0), 10)

    asyncio.run(story())


def test_news_are_how_many_workers_live_and_what_waits_for_one_and_who_else_is_there_if_none_does():
    async def story() -> None:
        dispatcher = Dispatcher()
        await dispatcher.expect(1, CONTEXT, [0, 1, 2], 1)
        news = await dispatcher.news()
        assert (news.num_workers, news.living, news.num_waiting, news.cause) == (0, set(), 3, "0 of 2 CPU free")
        await dispatcher.add(0, [Worker(), Worker()])
        await told(dispatcher, 2)
        news = await dispatcher.news()
        assert (news.num_workers, news.living, news.num_waiting, news.cause) == (2, {0, 1}, 0, "")

    asyncio.run(story())


def test_a_machine_that_may_have_no_worker_is_named_and_takes_no_fit_and_what_waits_goes_on_elsewhere(ended):
    refusal = failed(InputError("does not see the store"))

    async def story() -> None:
        dispatcher = Dispatcher()
        refused = Worker(never_begins=refusal, place=("id2", "10.0.0.2"))
        without_package = Worker(never_begins=ActorDiedError(), place=("id3", "10.0.0.3"))
        await dispatcher.expect(1, CONTEXT, [0, 1], 1)
        await dispatcher.add(0, [refused, without_package])
        waiting = asyncio.ensure_future(told(dispatcher, 0))
        await settled()
        news = await dispatcher.news()
        assert (news.num_workers, news.num_waiting, ended) == (0, 2, [refused, without_package])
        assert news.refusals["id2"] == "10.0.0.2: does not see the store"
        assert news.refusals["id3"].startswith("10.0.0.3: does not run a worker (ActorDiedError")
        assert not waiting.done()
        await dispatcher.add(2, [Worker()])
        assert await waiting == {"told": 0}

    asyncio.run(story())


def test_the_last_worker_lost_is_told_where_it_is_no_machines_fault():
    async def story() -> None:
        cause = ActorDiedError()
        alone = Dispatcher()
        await alone.expect(1, CONTEXT, ["one", "other"], 2)
        await alone.expect(2, CONTEXT, ["another"], 1)
        waiting, lent = asyncio.ensure_future(told(alone, 0)), asyncio.ensure_future(alone.lend(3))
        turn = asyncio.ensure_future(alone.turn(2))
        await settled()
        await alone.add(0, [Worker(never_begins=cause)])
        for raised in (waiting, lent, alone.news(), told(alone, 1), alone.lend(3), told(alone, 0)):
            with pytest.raises(ActorDiedError):
                await raised
        await turn

    asyncio.run(story())


def test_neither_the_dispatcher_nor_a_waiting_trial_loads_torch():
    modules = ("dispatcher", "trainable", "worker")
    names = ", ".join(f"d3m_ray.cluster.{name}" for name in modules)
    check = f"import sys, {names}; sys.exit(bool({{'torch', 'transformers', 'pandas'}} & set(sys.modules)))"
    # Tune itself loads pandas where it can: asked without the trainable, which loads Tune.
    check = check.replace("d3m_ray.cluster.trainable, ", "")
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
