"""Runs a function over many points on local cores or on a dask cluster, in no particular order, with flat memory.

Only a few points are under way at any time and each result is handed over as it comes, so the driver holds none.
"""

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from typing import Any

from llmsim.errors import UserError

Task = tuple[str, Any]  # key, and what the function takes
Work = Callable[[Any, Any], Any]  # (shared, task) -> result

_AHEAD = 2  # tasks submitted per worker, so that none waits for the driver
_TRIES = 2  # times that a task may take its worker down with it


def default_workers() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_local(work: Work, shared: Any, tasks: Iterable[Task], workers: int) -> Iterator[tuple[str, Any]]:
    """(key, result) of every task as it finishes. A task whose worker dies twice gives the exception as its result."""
    if workers <= 1:
        for key, task in tasks:
            yield key, work(shared, task)
        return
    _refuse_nested()
    waiting, blob = iter(tasks), pickle.dumps(shared)
    while lost := (yield from _run_pool(work, blob, waiting, workers)):
        for task in lost:  # one by one, to find out which of them it was
            for _ in range(_TRIES):
                if not (yield from _run_pool(work, blob, iter([task]), 1)):
                    break
            else:
                yield task[0], RuntimeError("its worker died twice")


def _run_pool(work: Work, blob: bytes, waiting: Iterator[Task], workers: int) -> Generator[Any, None, list[Task]]:
    """Yields results until there are no more tasks or a worker dies; returns the tasks that were under way then."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _install, (blob,))
    running: dict[Future, Task] = {}
    try:
        while True:
            for task in islice(waiting, workers * _AHEAD - len(running)):
                with _deaf_children():
                    running[pool.submit(_call, work, task[1])] = task
            if not running:
                return []
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                result = future.result()
                yield running.pop(future)[0], result
    except BrokenProcessPool:
        return list(running.values())
    except BaseException:  # Ctrl-C, or nobody wants the rest: what runs is not waited for
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes that start meanwhile do not hear Ctrl-C, which is for the driver: it then stops them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_dask(work: Work, shared: Any, tasks: Iterable[Task], address: str) -> Iterator[tuple[str, Any]]:
    """As `run_local`, on the workers of a dask scheduler; dask itself repeats the tasks of workers that die."""
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise UserError("--scheduler needs dask.distributed (pip install distributed)") from None
    try:
        client = Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--scheduler {address}: no dask scheduler answers there ({reason})") from None
    blob = pickle.dumps(shared)
    waiting = iter(tasks)
    with client:
        key_of: dict[str, str] = {}
        running = as_completed([])

        def submit() -> bool:
            task = next(waiting, None)
            if task is None:
                return False
            future = client.submit(_call_with, work, blob, task[1], pure=False)
            key_of[future.key] = task[0]
            running.add(future)
            return True

        threads = sum(client.nthreads().values())
        for _ in range(max(threads, 1) * _AHEAD + 2):
            if not submit():
                break
        for future in running:
            try:
                result = future.result()  # waits again when the worker that held it has died meanwhile
            except Exception as error:
                result = error
            key = key_of.pop(future.key)
            future.release()
            yield key, result
            submit()


_shared: Any = None


def _install(blob: bytes) -> None:
    from threading import Thread

    global _shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which then stops the workers
    Thread(target=_leave_with_driver, daemon=True).start()
    _shared = pickle.loads(blob)


def _leave_with_driver() -> None:
    """A driver that is killed cannot stop its workers, and a worker that waits for tasks would wait for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(work: Work, task: Any) -> Any:
    return work(_shared, task)


def _call_with(work: Work, blob: bytes, task: Any) -> Any:
    return work(_unpickled(blob), task)


@lru_cache(maxsize=4)
def _unpickled(blob: bytes) -> Any:
    return pickle.loads(blob)


def _refuse_nested() -> None:
    """A script without `if __name__ == "__main__":` is run again by each worker that starts."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError('in a script, call this under `if __name__ == "__main__":`, or give workers=1')
