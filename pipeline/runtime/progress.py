"""Progress of long work: units done, rate and remaining time, on a terminal and in a log."""

from __future__ import annotations

import sys
import time
from collections import deque

TERMINAL_EVERY = 0.2  # seconds between updates on a terminal ...
PLAIN_EVERY = 10.0  # ... and between plain lines elsewhere
WINDOW = 60.0  # seconds over which the rate is averaged, since it changes


class Progress:
    """A callable that takes the number of new units and prints progress.

    The rate does not include the first call's units, which an interrupted run did earlier.
    """

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self._start = self._last_line = time.monotonic()
        self._history: deque[tuple[float, int]] = deque()  # times and units done
        self._terminal = sys.stderr.isatty()
        self._print()

    def __call__(self, more: int = 1) -> None:
        """Count `more` units as done."""
        self.reach(self.done + more)

    def reach(self, done: int) -> None:
        """Set the number of units done to `done`."""
        self.done = done
        now = time.monotonic()
        if done and not self._history:
            self._history.append((now, done))
        if now - self._last_line >= (TERMINAL_EVERY if self._terminal else PLAIN_EVERY):
            self._print()

    def finish(self) -> None:
        """Print the last line."""
        self._print()
        if self._terminal:
            print(file=sys.stderr)

    def _print(self) -> None:
        self._last_line = time.monotonic()
        line = f"{self.label}: {self.done:,}/{self.total:,} {self.unit}"
        rate, left = self._rate(), max(self.total - self.done, 0)
        if rate:
            line += f", {rate:,.1f}/s"
        if not left:
            line += f", in {_clock(self._last_line - self._start)}"
        elif rate:
            line += f", {_clock(left / rate)} left"
        if self._terminal:
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _rate(self) -> float:
        """Recent units a second; 0 if there is no history."""
        if not self._history:
            return 0.0
        self._history.append((self._last_line, self.done))
        while self._last_line - self._history[1][0] >= WINDOW:
            self._history.popleft()
        (start, before), (now, done) = self._history[0], self._history[-1]
        return (done - before) / (now - start) if now > start else 0.0


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
