"""The one thread on which models run: jobs by priority, cancelled by a flag that they poll.

A completion goes before reading ahead, and reading ahead before indexing. Of what is done in the background the newest
goes first: the document that somebody has just turned to, before one that was opened a while ago. A job that is
under way when a more urgent one comes is told to stop; it is put back, and run again until it has come to its end.
While nothing waits, the thread sleeps on a condition: an idle server costs no CPU. What the jobs do is left to the
engine.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from enum import IntEnum
from typing import Any, Final, Generic, TypeVar

Result = TypeVar("Result")

Urgency = tuple[int, int]  # the smaller, the more urgent: the priority, and among equals an order

_IDLE: Final[Urgency] = (1 << 30, 0)  # less urgent than anything


class Priority(IntEnum):
    """The smaller, the more urgent."""

    COMPLETION = 0
    ADVANCE = 1  # loading a model, reading to where the user is: what makes the next completion cheap
    PREFILL = 2  # reading what is around that place
    INDEXING = 3


class Job(Generic[Result]):
    """Something to do on the model thread. Its `future` gets the result, or None if the job was cancelled."""

    def __init__(self, worker: Worker, key: Hashable, run: Callable[[Callable[[], bool]], Result]) -> None:
        self.urgency = _IDLE  # until it is queued
        self.key = key
        self.future: Future[Result | None] = Future()
        # From here on `future.cancel()` does nothing: a job ends by `cancel` below or by itself.
        self.future.set_running_or_notify_cancel()
        self._worker = worker
        self._run = run
        self._cancelled = False
        self._interrupted = False

    @property
    def cancelled(self) -> bool:
        """Whether it was given up, or a newer one of its key has taken over."""
        return self._cancelled

    def cancel(self) -> None:
        """Give the job up, from any thread. If it is under way, it ends when it next looks at its flag."""
        self._worker._give_up(self)

    def _stop_asked(self) -> bool:
        # Read without the lock: a flag and a tuple, each written as a whole, and looked at again at the next step.
        if self._cancelled:
            return True
        if self._worker._most_urgent < self.urgency:
            self._interrupted = True
            return True
        return False


class Worker:
    """The model thread and its queue. Everything here may be called from any thread."""

    def __init__(self, name: str = "model") -> None:
        self._condition = threading.Condition()
        self._queue: list[tuple[Urgency, Job[Any]]] = []  # a heap; no two are as urgent
        self._by_key: dict[Hashable, Job[Any]] = {}  # the newest unfinished job of each key
        self._running: Job[Any] | None = None
        self._arrivals = 0
        self._most_urgent: Urgency = _IDLE  # of what waits, at the head of the queue
        self._closing = False
        # A daemon, so that a native call that never returns cannot keep the process alive.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(
        self, priority: Priority, run: Callable[[Callable[[], bool]], Result], *, key: Hashable = None
    ) -> Job[Result]:
        """Queue `run`, which is called with the flag to poll; a job of the same `key` is cancelled in its favour."""
        job = Job(self, key, run)
        with self._condition:
            superseded = self._by_key.get(key) if key is not None else None
            if superseded is not None:
                superseded._cancelled = True
            if self._closing:
                job._cancelled = True
                job.future.set_result(None)
                return job
            if key is not None:
                self._by_key[key] = job
            self._arrivals += 1
            # Completions in the order of arrival, or one client could keep another waiting.
            job.urgency = priority, self._arrivals if priority is Priority.COMPLETION else -self._arrivals
            heapq.heappush(self._queue, (job.urgency, job))
            self._most_urgent = self._queue[0][0]
            self._condition.notify()
        if superseded is not None:
            superseded.cancel()
        return job

    def cancel(self, key: Hashable) -> None:
        """Give up the job of that key, if there is one."""
        with self._condition:
            job = self._by_key.get(key)
        if job is not None:
            job.cancel()

    def close(self, timeout: float = 5.0) -> bool:
        """Cancel everything and join the thread; say whether it ended within `timeout` seconds."""
        with self._condition:
            self._closing = True
            jobs = [job for _, job in self._queue]
            if self._running is not None:
                jobs.append(self._running)
            self._condition.notify()
        for job in jobs:
            job.cancel()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _give_up(self, job: Job[Any]) -> None:
        with self._condition:
            job._cancelled = True
            before = len(self._queue)
            self._queue = [entry for entry in self._queue if entry[1] is not job]
            if len(self._queue) == before:
                return  # under way, or done
            heapq.heapify(self._queue)
            self._settle(job)
            self._most_urgent = self._queue[0][0] if self._queue else _IDLE
        job.future.set_result(None)

    def _settle(self, job: Job[Any]) -> None:
        if self._by_key.get(job.key) is job:
            del self._by_key[job.key]

    def _work(self) -> None:
        while True:
            with self._condition:
                while not self._queue and not self._closing:
                    self._condition.wait()
                if not self._queue:
                    return
                _, job = heapq.heappop(self._queue)
                self._most_urgent = self._queue[0][0] if self._queue else _IDLE
                self._running = job
            self._run_one(job)
            del job  # what it holds (a document, an answer) must not live on while this thread sleeps

    def _run_one(self, job: Job[Any]) -> None:
        job._interrupted = False
        result: Any = None
        error: BaseException | None = None
        try:
            if not job._cancelled:
                result = job._run(job._stop_asked)
        except BaseException as raised:
            error = raised
        with self._condition:
            self._running = None
            if error is None and job._interrupted and not job._cancelled and not self._closing:
                heapq.heappush(self._queue, (job.urgency, job))
                self._most_urgent = self._queue[0][0]
                return
            self._settle(job)
        if job._cancelled:
            job.future.set_result(None)
        elif error is not None:
            job.future.set_exception(error)
        else:
            job.future.set_result(result)
