"""Calls go to workers that are free, a dead process is replaced, and no trial is answered before all have a process."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from d3m_ray.cluster import dispatcher as module
from d3m_ray.cluster.dispatcher import Dispatcher

CONTEXT = ["a handle"]


class Method:
    """A method of an actor's handle, answered by a function that may raise."""

    def __init__(self, answer: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self._answer = answer

    def options(self, **_: object) -> "Method":
        return self

    def remote(self, *arguments: Any) -> Any:
        return asyncio.ensure_future(self._answer(*arguments))


class Worker:
    """In place of an actor: notes what it is asked for, and fails where it is told to."""

    def __init__(self, fails: dict[Any, Exception] | None = None, never_begins: RayError | None = None) -> None:
        self.calls: list[Any] = []
        self.num_lives = 0
        self._fails, self._never_begins = fails or {}, never_begins
        self.begin, self.fit = Method(self._begin), Method(self._run)

    async def _begin(self) -> int:
        if self._never_begins is not None:
            raise self._never_begins
        return self.num_lives

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


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def test_no_trial_is_answered_before_all_have_a_process_while_fits_go_on():
    async def story() -> None:
        dispatcher, worker = Dispatcher(), Worker()
        await dispatcher.add([worker])
        await dispatcher.expect(CONTEXT, list(range(4)), 2)
        first = asyncio.ensure_future(dispatcher.fit(0))
        await settled()
        assert not first.done()
        assert worker.calls == [0, 1, 2, 3], "in the order in which they will be asked for"
        assert await dispatcher.fit(1) == {"told": 1}
        assert await first == {"told": 0}
        assert [await dispatcher.fit(number) for number in (2, 3)] == [{"told": 2}, {"told": 3}]
        assert worker.calls == [0, 1, 2, 3], "none twice"

    asyncio.run(story())


def test_a_trial_whose_process_never_starts_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.01)

    async def story() -> None:
        dispatcher = Dispatcher()
        await dispatcher.add([Worker()])
        await dispatcher.expect(CONTEXT, [0, 1], 2)
        assert await dispatcher.fit(0) == {"told": 0}

    asyncio.run(story())


def test_once_all_ask_fits_begin_as_they_are_asked_for():
    async def story() -> None:
        dispatcher, worker = Dispatcher(), Worker()
        await dispatcher.expect(CONTEXT, list(range(5)), 1)
        asked = asyncio.ensure_future(dispatcher.fit(0))
        await settled()
        await dispatcher.add([worker])
        await asked
        await settled()
        assert worker.calls == [0]
        await dispatcher.expect(CONTEXT, ["next"], 1)
        assert await dispatcher.fit(0) == {"told": "next"}

    asyncio.run(story())


def test_a_fit_says_its_error_and_the_next_one_has_another_process(monkeypatch):
    ended = []

    def kill(worker: Worker, no_restart: bool) -> None:
        assert not no_restart
        ended.append(worker)
        asyncio.get_running_loop().call_later(0.01, lambda: setattr(worker, "num_lives", worker.num_lives + 1))

    monkeypatch.setattr(module.ray, "kill", kill)

    async def story() -> None:
        dispatcher = Dispatcher()
        worker = Worker(fails={0: failed(OSError("no route"))})
        await dispatcher.add([worker])
        await dispatcher.expect(CONTEXT, [0, 1], 1)
        with pytest.raises(OSError, match="no route"):
            await dispatcher.fit(0)
        assert await dispatcher.fit(1) == {"told": 1}
        assert (ended, worker.num_lives) == ([worker], 1)
        assert await dispatcher.fit(0) == {"told": 0}, "asked for again"

    asyncio.run(story())


def test_a_dead_process_costs_a_fit_one_try():
    async def story() -> None:
        dispatcher = Dispatcher()
        await dispatcher.add([Worker(fails={"fit": ActorDiedError()})])
        await dispatcher.expect(CONTEXT, ["fit"], 1)
        with pytest.raises(ActorDiedError):
            await dispatcher.fit(0)
        assert await dispatcher.fit(0) == {"told": "fit"}

    asyncio.run(story())


def test_room_is_there_once_a_worker_has_begun_and_the_last_one_lost_is_told():
    async def story() -> None:
        dispatcher, cause = Dispatcher(), ActorDiedError()
        asked = asyncio.ensure_future(dispatcher.has_room())
        await settled()
        assert not asked.done()
        await dispatcher.add([Worker(), Worker(never_begins=cause)])
        await asked
        alone = Dispatcher()
        await alone.expect(CONTEXT, ["one", "other"], 2)
        waiting = asyncio.ensure_future(alone.fit(0))
        await settled()
        await alone.add([Worker(never_begins=cause)])
        for raised in (waiting, alone.has_room(), alone.fit(1)):
            with pytest.raises(ActorDiedError):
                await raised

    asyncio.run(story())


def test_neither_the_dispatcher_nor_a_waiting_trial_loads_torch():
    modules = ("dispatcher", "trainable", "worker")
    names = ", ".join(f"d3m_ray.cluster.{name}" for name in modules)
    check = f"import sys, {names}; sys.exit(bool({{'torch', 'transformers', 'pandas'}} & set(sys.modules)))"
    # Tune itself loads pandas where it can: asked without the trainable, which loads Tune.
    check = check.replace("d3m_ray.cluster.trainable, ", "")
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
