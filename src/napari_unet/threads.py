"""Threads that compute: how many, which give way to a window, and as many as are fastest beside whatever else a machine does."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import torch

from napari_unet.errors import UNetError

NICE = 10  # of 19: two threads of this kind leave a third one nine tenths of a core
SLOW = 2.0  # times as long as usual: two such steps say that other programs compute, one that a trial is in vain
PATIENCE, SHARE = 20.0, 20  # between trials at least so many seconds, and so many times what the last one took


@contextmanager
def limited(count: int | None) -> Iterator[None]:
    """So many threads of torch for the time being; None leaves them as they are."""
    if count is not None and count < 1:
        raise UNetError("--threads", f"{count} threads", "Use 1 or more")
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Fastest:
    """As many threads, up to those that torch has now, as take a step fastest beside whatever else the machine does.

    torch's threads wait for one another after every operation: beside a program that keeps one of two cores busy, a step of two
    threads takes three times as long as one of a single thread (docs/experiments.md). So the first steps have
    one thread, and more while that is faster; now and then two are taken with a few more or fewer; and where steps become
    slow it begins again with one.

    Parameters
    ----------
    clock : seconds, as `time.monotonic`.
    use : is told how many threads the next step has.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, use: Callable[[int], None] = torch.set_num_threads) -> None:
        self.clock, self.use = clock, use
        self.counts = _counts(torch.get_num_threads())
        self.kept = self.tried = 0  # places in `counts`; one is tried while they differ
        self.usual = math.inf  # seconds per unit of work with the kept number
        self.way, self.began, self.due = 1, clock(), clock()
        self.times: deque[float] = deque(maxlen=2)  # of the newest steps with one number, per unit of work
        use(1)

    @property
    def settled(self) -> bool:
        """Whether it is known, for the time being, which number is fastest."""
        return self.tried == self.kept and self.clock() < self.due

    def rest(self) -> None:
        """The kept number is that of other work, too, which tells nothing of a step: no trial goes on over it."""
        if self.tried != self.kept:
            self._change(self.kept)

    def took(self, seconds: float, work: float) -> None:
        """A step with so much work to do (its voxels, say) took so long. The next one may have another number of threads."""
        self.times.append(seconds / work)
        if self.tried != self.kept:
            self._judge()
        elif len(self.times) == 2 and self.kept and min(self.times) > SLOW * self.usual:
            self._try(0)
        elif len(self.times) == 2 and self.clock() >= self.due:
            self.way = self.way if self._leads(self.way) else -self.way
            self._try(self.kept + self.way)

    def _leads(self, way: int) -> bool:
        return 0 <= self.kept + way < len(self.counts)

    def _try(self, place: int) -> None:
        if 0 <= place < len(self.counts):
            self.usual, self.began = min(self.times), self.clock()
            self._change(place)

    def _judge(self) -> None:
        if len(self.times) < 2 and self.times[0] < SLOW * self.usual:
            return
        self.due = self.clock() + max(PATIENCE, SHARE * (self.clock() - self.began))
        if min(self.times) < self.usual:
            self.kept, self.usual, self.way = self.tried, min(self.times), self.way if self.tried else 1
            self._try(self.kept + self.way)
        else:
            self.way = -self.way
            self._change(self.kept)

    def _change(self, place: int) -> None:
        self.tried = place
        self.times.clear()
        self.use(self.counts[place])


def _counts(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, 16, ... and the most: each a half or a third more than the one before."""
    powers = (2**n for n in range(most.bit_length()))
    return sorted({count for power in powers for count in (power, power * 3 // 2) if count < most} | {most})


@contextmanager
def alone(count: int) -> Iterator[None]:
    """torch keeps to the calling thread for the time being, and then to `count` threads: while others compute, its own would spin.

    The number is a thread's own; but setting it also says what threads begin with that are new to torch, who are not meant.
    """
    _here(1, count)
    try:
        yield
    finally:
        _here(count, count)


def _here(count: int, elsewhere: int) -> None:
    torch.set_num_threads(count)
    other = threading.Thread(target=torch.set_num_threads, args=(elsewhere,))
    other.start()
    other.join()


def giving_way() -> ThreadPoolExecutor:
    """A thread that gives way to others, as do those that it starts, so that a window is drawn at once while it computes.

    On Linux, where a priority is a thread's own; elsewhere it is one like others.
    """
    return ThreadPoolExecutor(1, initializer=_give_way)


def _give_way() -> None:
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
