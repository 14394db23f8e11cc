"""Work spread over processes by Dask: an embedded local cluster, or a scheduler that is running already.

Tasks are given paths and return a few numbers; text goes through files that all workers see. A worker that dies is
no loss: Dask gives its tasks to another, and a task can be done twice. What the tasks do is the caller's.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import dask
from distributed import Client, KilledWorker, LocalCluster, TimeoutError, as_completed
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError

from lsp_charrnn.errors import CorpusError, OutputError, SettingError

_SECONDS_TO_ANSWER: Final = 10
_NO_PAGES: Final[dict[str, list[str]]] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}

_Result = TypeVar("_Result")


@contextmanager
def connected(scheduler: str | None = None, workers: int | None = None) -> Iterator[Client]:
    """Give a client of `scheduler` (its address), or of a local cluster of `workers` processes, gone with the block.

    The local one listens on the loopback interface only, has no dashboard, and as many workers as there are cores.
    Raises `SettingError` if no scheduler answers at the address, or one without workers.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters comes back as an error
    if scheduler is not None:
        with _client_of(scheduler) as client:
            yield client
        return
    # Ctrl-C goes to the whole process group, and is for us alone. Dask's HTTP servers cannot be switched off, but
    # asked for nothing: no routes, any free port.
    with _interrupts_ignored(), dask.config.set(_NO_PAGES):
        cluster = LocalCluster(
            n_workers=workers or cores(),
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            silence_logs=logging.CRITICAL,
        )
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


@contextmanager
def _client_of(scheduler: str) -> Iterator[Client]:
    try:
        client = Client(scheduler, timeout=_SECONDS_TO_ANSWER, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise SettingError(
            f"no Dask scheduler answers at {scheduler}: give the address that `dask scheduler` printed "
            "(tcp://HOST:PORT), or leave --scheduler out."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_SECONDS_TO_ANSWER)
        except TimeoutError as error:
            raise SettingError(
                f"the scheduler at {scheduler} has no workers: start some with `dask worker {scheduler}`."
            ) from error
        yield client


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run_all(
    client: Client,
    function: Callable[..., _Result],
    arguments: Sequence[tuple[Any, ...]],
    *,
    done: Callable[[_Result], None],
) -> list[_Result]:
    """Return `function(*a)` for all `arguments`, in their order; `done` is called with each result as it comes.

    Raises what a task raised, as soon as it did: `OutputError` where that was the disk's, `CorpusError` if one task
    took several workers with it, `SettingError` if the scheduler has gone.
    """
    # Not pure: a scheduler that has seen the same call before must not answer from memory, files may have gone.
    futures = [client.submit(function, *given, pure=False) for given in arguments]
    results: dict[object, _Result] = {}
    try:
        for future in as_completed(futures, loop=client.loop):
            result = future.result()
            results[future.key] = result
            done(result)
    except KilledWorker as error:
        raise CorpusError(
            "a task took several workers with it, one after another: they need more memory, or fewer --workers."
        ) from error
    except (CommClosedError, FutureCancelledError) as error:
        raise SettingError("the Dask scheduler has gone: start one, then give the command again.") from error
    except OSError as error:
        raise OutputError(f"a worker cannot go on ({error}): mend that, then give the command again.") from error
    finally:
        if client.status == "running":
            client.cancel(futures)
    return [results[future.key] for future in futures]


def cores() -> int:
    """Return how many cores this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux: what a container or taskset leaves us
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
