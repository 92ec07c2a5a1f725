"""Progress of long work: done, rate and time left, on a terminal and in a log."""

from __future__ import annotations

import sys
import time
from collections import deque

TERMINAL_EVERY = 0.2  # seconds between updates on a terminal ...
PLAIN_EVERY = 10.0  # ... and between plain lines elsewhere
WINDOW = 60.0  # seconds back that the rate is taken over: work gets slower and faster


class Progress:
    """Call it with how much more is done.

    The rate counts from the first that is told, which is what an interrupted run had done before.
    """

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self._began = self._told = time.monotonic()
        self._seen: deque[tuple[float, int]] = deque()  # when how much was done
        self._terminal = sys.stderr.isatty()
        self._say()

    def __call__(self, more: int = 1) -> None:
        """`more` units are done."""
        self.reach(self.done + more)

    def reach(self, done: int) -> None:
        """`done` units are done in all."""
        self.done = done
        now = time.monotonic()
        if done and not self._seen:
            self._seen.append((now, done))
        if now - self._told >= (TERMINAL_EVERY if self._terminal else PLAIN_EVERY):
            self._say()

    def finish(self) -> None:
        """Say the last line."""
        self._say()
        if self._terminal:
            print(file=sys.stderr)

    def _say(self) -> None:
        self._told = time.monotonic()
        line = f"{self.label}: {self.done:,}/{self.total:,} {self.unit}"
        rate, left = self._rate(), max(self.total - self.done, 0)
        if rate:
            line += f", {rate:,.1f}/s"
        if not left:
            line += f", in {_clock(self._told - self._began)}"
        elif rate:
            line += f", {_clock(left / rate)} left"
        if self._terminal:
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _rate(self) -> float:
        """Units a second of late, 0 where there is nothing to tell it from."""
        if not self._seen:
            return 0.0
        self._seen.append((self._told, self.done))
        while self._told - self._seen[1][0] >= WINDOW:
            self._seen.popleft()
        (begun, before), (now, done) = self._seen[0], self._seen[-1]
        return (done - before) / (now - begun) if now > begun else 0.0


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
