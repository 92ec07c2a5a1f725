"""Numbers, times and machines as the page prints them."""

from collections.abc import Mapping
from typing import Any


def describe(machine: Mapping[str, Any]) -> str:
    """The machine of a run in one line."""
    gpu = machine.get("gpu") or "no GPU"
    return f"{machine.get('processor', 'unknown')}, {machine.get('cores', '?')} cores, {gpu}"


def commit(name: str) -> str:
    """A commit's first digits; a `+` for changes on top of it stays."""
    return name[:8] + "+" * name.endswith("+") if name else "no commit"


def percent(value: float) -> str:
    """A percentage as the page prints it: 12.3, with a true minus sign, and no minus zero."""
    return f"{round(value, 1) + 0:.1f}".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float) -> str:
    """Seconds as the page prints them: 4.2 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def memory(size: float) -> str:
    """Bytes as the page prints them: 812 MiB, 1.4 GiB."""
    return f"{size / 2**20:,.0f} MiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"
