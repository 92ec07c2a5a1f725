"""People's clicks for an entry of `annotations`, in the browser: `make annotate NAME=drawer-open`.

`--export FOLDER` writes the frames for ViSaRL's own tool instead, `--import FOLDER` takes its
clicks. Clicks end in the file of one frame set and annotator, which the stage `annotate` turns into
maps.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from PIL import Image

from datasets.annotation import heatmap_js, server
from datasets.annotation.choice import digest, keys, order
from datasets.annotation.click_file import CLICKS, Clicked, path_of, read_clicks, write_clicks
from datasets.errors import FoveaError
from datasets.shards import read_frames
from pipeline import params
from pipeline.config.tables import Entry
from pipeline.runtime.artifact import open_artifact
from pipeline.runtime.stage import told_plainly


def task(entry: Entry, annotator: str) -> server.Task:
    """The frames of an entry, in the order of the page. FoveaError where they aren't built."""
    data = open_artifact(f"frames/{entry.keys.frames}")
    frames = read_frames(data.folder, data.files)
    indices = order(frames, entry.config.seed)[: entry.keys.count]
    every = keys(frames)
    return server.Task(
        title=entry.name,
        annotator=annotator,
        path=path_of(CLICKS / entry.keys.frames, annotator),
        keys=tuple(every[index] for index in indices),
        digests=tuple(digest(frames, index) for index in indices),
        images=frames.images[indices],
    )


def click(task: server.Task, port: int | None) -> None:
    """Serve the page until Ctrl-C, then say what comes next."""
    with server.listen(port) as sock:
        server.serve(task, sock, lambda url: _say(f"open {url}\n(Ctrl-C when done)"))
    clicked = read_clicks(task.path)
    done = sum(key in clicked for key in task.keys)
    _say(f"\n{done} of {len(task.keys)} frames have clicks, in {task.path}; commit that file")


def give(task: server.Task, folder: Path) -> None:
    """Write the frames as pictures for another tool, numbered as `bring` counts them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(task.images):
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    _say(f"{folder}: {len(task.images)} pictures, to click on in another tool")


def bring(task: server.Task, folder: Path) -> None:
    """Import clicks made with ViSaRL's tool on these frames, numbered in the page's order.

    Its files name no pictures: nothing checks that the clicks are on these.
    """
    if task.path.exists():
        raise FoveaError(
            f"{task.path}: is there already; import as another annotator (--as …, with make AS=…)"
        )
    clicks = heatmap_js.read(folder, len(task.keys))
    task.path.parent.mkdir(parents=True, exist_ok=True)
    annotated = {task.keys[n]: Clicked(task.digests[n], points) for n, points in clicks.items()}
    write_clicks(task.path, annotated)
    _say(f"{task.path}: {sum(map(len, clicks.values()))} clicks on {len(clicks)} frames")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.commands.clicks", description=__doc__)
    parser.add_argument("entry", nargs="?", help="an entry of `annotations`; without, their names")
    parser.add_argument(
        "--as", dest="annotator", default=os.environ.get("USER") or "me", metavar="NAME"
    )
    parser.add_argument("--port", type=int, help=f"else the first free one from {server.PORT} on")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="for pictures NNN.png")
    parser.add_argument("--import", dest="folder", type=Path, help="of annotations_NNN.txt")
    arguments = parser.parse_args()
    with told_plainly():
        checked = params.load()
        if arguments.entry is None:
            names = ", ".join(checked.tables["annotations"]) or "none; write one in params.yaml"
            raise FoveaError(f"name an entry of annotations (make annotate NAME=…): {names}")
        entry = checked.entry("annotations", arguments.entry)
        if entry.keys.annotator != "human":
            _say(
                f"note: annotations.{entry.name} takes no clicks of people; `annotator: human` does"
            )
        frames = task(entry, arguments.annotator)
        if arguments.export:
            give(frames, arguments.export)
        elif arguments.folder:
            bring(frames, arguments.folder)
        else:
            click(frames, arguments.port)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
