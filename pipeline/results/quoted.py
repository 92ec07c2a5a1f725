"""Measured numbers in the words of a line: taken from a committed JSON file, not typed."""

from __future__ import annotations

from pathlib import Path

from datasets.errors import FoveaError
from pipeline.results.measured import read_kept

ROOT = Path(__file__).parents[2]  # of the repository, which the files are named from


def quote(words: str, file: str) -> str:
    """The words with `{mean:.1f}` or `{saliency[figures][rounds]}` (as str.format has them)
    replaced by what the file holds under these keys, and a link to it.

    Raises FoveaError naming the file that is missing or malformed, or the key that it lacks.
    """
    path = ROOT / file
    if not path.exists():
        raise FoveaError(f"{file}: not there; commit what was measured, or name another file")
    held = read_kept(path, "measure it again")
    try:
        filled = words.format_map(held)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise FoveaError(
            f"{file}: does not fill {words!r} ({error!r}); name keys that it has"
        ) from error
    return f"{filled} ([{path.name}]({file}))"
