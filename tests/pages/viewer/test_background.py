"""Long computations are done once, tell how far they are, and end when they are told to."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vocprep.errors import ShardError
from vocprep.pages.viewer.queries import NotReadyError
from vocprep.pages.viewer.shown import background
from vocprep.pages.viewer.shown.background import Background, FailedError, Requests, Task


def test_what_many_ask_for_is_computed_once() -> None:
    begun, go = threading.Event(), threading.Event()
    calls: list[int] = []

    def work(task: Task[str]) -> str:
        calls.append(1)
        task.advance(3)
        begun.set()
        assert go.wait(60)
        return "done"

    task = Task(work, 10, "the list")
    assert task.to_json() == {"state": "waiting", "done": 0, "total": 10, "error": None}
    with pytest.raises(NotReadyError, match="the list: not ready yet, 0 of 10 pictures"):
        task.finished()
    with ThreadPoolExecutor(4) as threads:
        first = [threads.submit(task.result) for _ in range(3)]
        assert begun.wait(60)
        with pytest.raises(NotReadyError, match="3 of 10"):
            task.ask(0.01)
        assert task.to_json()["state"] == "reading"
        go.set()
        assert [each.result(60) for each in first] == ["done"] * 3
    assert task.ask() == "done"
    assert task.is_ready()
    assert calls == [1]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ShardError("train-0.h5: damaged"), "the list: train-0.h5: damaged"),
        (ValueError("odd"), "the list: a fault in vocprep itself, ValueError: odd"),
        (MemoryError(), "the list: the memory does not suffice; close other programs"),
    ],
)
def test_a_failure_is_told_each_time(error: Exception, words: str) -> None:
    calls: list[int] = []

    def work(_: Task[None]) -> None:
        calls.append(1)
        raise error

    task = Task(work, 1, "the list", "scoring")
    for call in (task.result, task.ask, task.finished):
        with pytest.raises(FailedError) as caught:
            call()
        assert str(caught.value) == words
    assert task.to_json()["state"] == "failed"
    assert calls == [1]


def test_tasks_follow_one_another_and_end_with_the_viewer() -> None:
    order: list[str] = []
    begun = threading.Event()

    def quick(_: Task[None]) -> None:
        order.append("quick")

    def failing(_: Task[None]) -> None:
        order.append("failing")
        raise ShardError("damaged")

    def endless(task: Task[None]) -> None:
        order.append("endless")
        begun.set()
        while True:
            task.advance(1)

    def never(_: Task[None]) -> None:
        order.append("never")

    tasks = [Task(work, 5, "it") for work in (quick, failing, endless, never)]
    thread = Background(tasks)
    thread.start(tasks)
    assert begun.wait(60)
    thread.stop(60)
    assert order == ["quick", "failing", "endless"]
    assert tasks[2].to_json()["done"] == 5  # no more than there are
    with pytest.raises(NotReadyError):
        tasks[3].ask(0.01)
    assert order[-1] == "endless"


def test_computations_give_way_to_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_GIVEN_WAY", 60)
    requests = Requests()
    requests.give_way()  # to none
    with requests.waiting():  # no request, such as a test
        requests.give_way()
    with ThreadPoolExecutor(2) as threads:
        with requests.answering():
            step = threads.submit(requests.give_way)
            with pytest.raises(TimeoutError):
                step.result(0.05)
            with requests.waiting():  # for that very computation
                threads.submit(requests.give_way).result(60)
        step.result(60)
