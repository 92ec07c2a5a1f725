"""Progress of long work: done, rate and time left, on a terminal and in a log."""

from __future__ import annotations

import sys
import time

TERMINAL_EVERY = 0.2  # seconds between updates on a terminal ...
PLAIN_EVERY = 10.0  # ... and between plain lines elsewhere


class Progress:
    """Call it with how much more is done. `start` is what an interrupted run had done before."""

    def __init__(self, label: str, total: int, unit: str, start: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = self._start = start
        self._began = self._told = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._say()

    def __call__(self, more: int = 1) -> None:
        """`more` units are done."""
        self.reach(self.done + more)

    def reach(self, done: int) -> None:
        """`done` units are done in all."""
        self.done = done
        every = TERMINAL_EVERY if self._terminal else PLAIN_EVERY
        if time.monotonic() - self._told >= every:
            self._say()

    def finish(self) -> None:
        """Say the last line."""
        self._say()
        if self._terminal:
            print(file=sys.stderr)

    def _say(self) -> None:
        self._told = time.monotonic()
        passed = self._told - self._began
        fresh = self.done - self._start
        line = f"{self.label}: {self.done:,}/{self.total:,} {self.unit}"
        if fresh and passed > 0:
            rate = fresh / passed
            left = max(self.total - self.done, 0) / rate
            line += f", {rate:,.1f}/s, " + (
                f"{_clock(left)} left" if left else f"in {_clock(passed)}"
            )
        elif self._start:
            line += " (going on from there)"
        if self._terminal:
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
