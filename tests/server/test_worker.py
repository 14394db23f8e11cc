"""The model thread: order, cancelling, being interrupted, sleeping."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from lsp_charrnn.server.worker import Priority, Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    assert worker.close()


class Blocker:
    """A job that is under way until it is released, or told to stop."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.release = threading.Event()
        self.runs = 0
        self.stopped = 0

    def __call__(self, cancelled: Callable[[], bool]) -> str:
        self.runs += 1
        self.started.set()
        while not self.release.is_set():
            if cancelled():
                self.stopped += 1
                return "stopped"
            time.sleep(0.001)
        return "done"


def test_the_urgent_goes_first_and_of_the_background_the_newest(worker: Worker) -> None:
    order: list[str] = []

    def note(name: str, _: Callable[[], bool]) -> None:
        order.append(name)

    first = Blocker()
    worker.submit(Priority.COMPLETION, first)
    first.started.wait(5)
    jobs = [
        worker.submit(priority, partial(note, name))
        for name, priority in [
            ("index", Priority.INDEXING),
            ("read", Priority.PREFILL),
            ("complete", Priority.COMPLETION),
            ("advance", Priority.ADVANCE),
            ("read more", Priority.PREFILL),
            ("complete more", Priority.COMPLETION),
        ]
    ]
    first.release.set()
    for job in jobs:
        job.future.result(5)
    assert order == ["complete", "complete more", "advance", "read more", "read", "index"]


def test_a_result_and_an_exception_reach_the_future(worker: Worker) -> None:
    assert worker.submit(Priority.PREFILL, lambda _: 42).future.result(5) == 42
    with pytest.raises(ZeroDivisionError):
        worker.submit(Priority.PREFILL, lambda _: 1 // 0).future.result(5)
    assert worker.submit(Priority.PREFILL, lambda _: "still alive").future.result(5) == "still alive"


def test_cancelling_what_is_under_way_and_what_waits(worker: Worker) -> None:
    running = Blocker()
    under_way = worker.submit(Priority.COMPLETION, running)
    running.started.wait(5)
    waiting = worker.submit(Priority.COMPLETION, lambda _: "never")
    waiting.cancel()
    assert waiting.future.result(0) is None
    under_way.cancel()
    assert under_way.future.result(5) is None
    assert running.stopped == 1
    under_way.cancel()  # done: does nothing


def test_a_newer_job_of_the_same_key_takes_over(worker: Worker) -> None:
    running = Blocker()
    under_way = worker.submit(Priority.COMPLETION, running, key="a")
    running.started.wait(5)
    waiting = worker.submit(Priority.COMPLETION, lambda _: "never", key="a")
    newest = worker.submit(Priority.COMPLETION, lambda _: "newest", key="a")
    other = worker.submit(Priority.COMPLETION, lambda _: "other", key="b")
    assert [job.future.result(5) for job in (under_way, waiting, newest, other)] == [
        None,
        None,
        "newest",
        "other",
    ]
    worker.cancel("a")  # done: does nothing


def test_the_less_urgent_stops_for_the_urgent_and_is_run_again(worker: Worker) -> None:
    reading = Blocker()
    job = worker.submit(Priority.PREFILL, reading)
    reading.started.wait(5)
    reading.started.clear()
    assert worker.submit(Priority.COMPLETION, lambda _: "urgent").future.result(5) == "urgent"
    reading.started.wait(5)
    assert not job.future.done()
    reading.release.set()
    assert job.future.result(5) == "done"
    assert (reading.runs, reading.stopped) == (2, 1)


def test_a_completion_stops_for_no_other(worker: Worker) -> None:
    first = Blocker()
    job = worker.submit(Priority.COMPLETION, first)
    first.started.wait(5)
    behind = worker.submit(Priority.COMPLETION, lambda _: "behind")
    time.sleep(0.02)
    first.release.set()
    assert job.future.result(5) == "done"
    assert behind.future.result(5) == "behind"
    assert first.runs == 1


def test_what_is_read_in_the_background_stops_for_what_came_later(worker: Worker) -> None:
    reading = Blocker()
    job = worker.submit(Priority.PREFILL, reading)
    reading.started.wait(5)
    newer = worker.submit(Priority.PREFILL, lambda _: "newer")
    assert newer.future.result(5) == "newer"
    worker.submit(Priority.INDEXING, lambda _: "no reason to stop")
    reading.release.set()
    assert job.future.result(5) == "done"
    assert (reading.runs, reading.stopped) == (2, 1)


def test_an_idle_worker_costs_no_cpu_and_keeps_nothing_alive(worker: Worker) -> None:
    class Large:
        pass

    large = Large()
    gone = weakref.ref(large)

    def hold(held: Large, _: Callable[[], bool]) -> Large:
        return held

    worker.submit(Priority.COMPLETION, partial(hold, large)).future.result(5)
    del large
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.02
    gc.collect()
    assert gone() is None


def test_closing_cancels_everything_and_joins() -> None:
    worker = Worker()
    running = Blocker()
    jobs = [worker.submit(Priority.PREFILL, running), worker.submit(Priority.INDEXING, lambda _: "never")]
    running.started.wait(5)
    assert worker.close()
    assert [job.future.result(0) for job in jobs] == [None, None]
    assert worker.submit(Priority.COMPLETION, lambda _: "too late").future.result(0) is None


def test_many_threads_submit_and_cancel(worker: Worker) -> None:
    futures = []
    lock = threading.Lock()

    def hammer(seed: int) -> None:
        for index in range(200):
            job = worker.submit(Priority(index % 3), lambda cancelled: cancelled(), key=(seed + index) % 7)
            if index % 5 == 0:
                job.cancel()
            with lock:
                futures.append(job.future)

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Every job ends, whoever cancelled it and when.
    assert {future.result(5) for future in futures} <= {None, False}
