"""People's clicks for an entry of `annotations`, in the browser: `make annotate NAME=drawer-open`.

`--export FOLDER` writes the frames for ViSaRL's own tool instead, `--import FOLDER` imports its
clicks. The clicks of one annotator on one frame set are one file, from which the stage `annotate`
renders maps.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from PIL import Image

from datasets.annotation import heatmap_js, server
from datasets.annotation.choice import digest, keys, order
from datasets.annotation.click_file import CLICKS, FrameClicks, path_of, read_clicks, write_clicks
from datasets.errors import FoveaError
from datasets.shards import read_frames
from pipeline import params
from pipeline.config.tables import Entry
from pipeline.runtime.artifact import open_artifact
from pipeline.runtime.stage import plain_errors


def task(entry: Entry, annotator: str) -> server.Task:
    """The frames of an entry, in the page's order. Raises FoveaError if they are not built."""
    data = open_artifact(f"frames/{entry.keys.frames}")
    frames = read_frames(data.folder, data.files)
    indices = order(frames, entry.config.seed)[: entry.keys.count]
    names = keys(frames)
    return server.Task(
        title=entry.name,
        annotator=annotator,
        path=path_of(CLICKS / entry.keys.frames, annotator),
        keys=tuple(names[index] for index in indices),
        digests=tuple(digest(frames, index) for index in indices),
        images=frames.images[indices],
    )


def click(task: server.Task, port: int | None) -> None:
    """Serve the page until Ctrl-C, then print the number of frames with clicks."""
    with server.listen(port) as sock:
        server.serve(task, sock, lambda url: _say(f"open {url}\n(Ctrl-C when done)"))
    clicks = read_clicks(task.path)
    count = sum(key in clicks for key in task.keys)
    _say(f"\n{count} of {len(task.keys)} frames have clicks, in {task.path}; commit that file")


def export_frames(task: server.Task, folder: Path) -> None:
    """Write the frames as pictures for another tool, numbered as `import_clicks` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(task.images):
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    _say(f"{folder}: {len(task.images)} pictures, to annotate in another tool")


def import_clicks(task: server.Task, folder: Path) -> None:
    """Import clicks made with ViSaRL's tool on these frames, numbered in the page's order.

    Its files do not name pictures, so it cannot be checked that the clicks are on these frames.
    """
    if task.path.exists():
        raise FoveaError(
            f"{task.path}: exists already; import as another annotator (--as …, with make AS=…)"
        )
    clicks = heatmap_js.read(folder, len(task.keys))
    task.path.parent.mkdir(parents=True, exist_ok=True)
    content = {task.keys[n]: FrameClicks(task.digests[n], points) for n, points in clicks.items()}
    write_clicks(task.path, content)
    _say(f"{task.path}: {sum(map(len, clicks.values()))} clicks on {len(clicks)} frames")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.commands.clicks", description=__doc__)
    parser.add_argument("entry", nargs="?", help="an entry of `annotations`; without it, a list")
    parser.add_argument(
        "--as",
        dest="annotator",
        default=os.environ.get("USER") or "me",
        metavar="NAME",
        help="the annotator (default: the user)",
    )
    parser.add_argument(
        "--port", type=int, help=f"the page's port (default: the first free from {server.PORT} on)"
    )
    parser.add_argument(
        "--export", type=Path, metavar="FOLDER", help="write the frames there as NNN.png"
    )
    parser.add_argument(
        "--import",
        dest="folder",
        type=Path,
        metavar="FOLDER",
        help="import the clicks of its annotations_NNN.txt",
    )
    arguments = parser.parse_args()
    with plain_errors():
        entries = params.load()
        if arguments.entry is None:
            names = ", ".join(entries.tables["annotations"]) or "none; write one in params.yaml"
            raise FoveaError(f"name an entry of annotations (make annotate NAME=…): {names}")
        entry = entries.entry("annotations", arguments.entry)
        if entry.keys.annotator != "human":
            _say(
                f"note: annotations.{entry.name} does not use people's clicks; set `annotator: "
                "human` for that"
            )
        frames = task(entry, arguments.annotator)
        if arguments.export:
            export_frames(frames, arguments.export)
        elif arguments.folder:
            import_clicks(frames, arguments.folder)
        else:
            click(frames, arguments.port)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
