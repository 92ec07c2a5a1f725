"""Make a recipe the current params.yaml: `python -m pipeline.commands.recipe NAME [--force]`."""

from __future__ import annotations

import argparse
import subprocess
import textwrap
from itertools import takewhile
from pathlib import Path

from datasets.errors import FoveaError
from datasets.files import write_atomic
from pipeline import params
from pipeline.config.typed import closest
from pipeline.runtime.stage import plain_errors

RECIPES = Path(__file__).parents[1] / "recipes"


def recipes() -> dict[str, Path]:
    """Name -> file of every recipe."""
    return {path.stem: path for path in sorted(RECIPES.glob("[!.]*.yaml"))}


def use(name: str, *, force: bool = False, target: Path = params.PARAMS) -> None:
    """Check a recipe, and copy it over params.yaml.

    Raises:
        FoveaError: there is no such recipe; or params.yaml has edits that are in no recipe and no
            commit, and `force` is false.
    """
    known = recipes()
    if name not in known:
        raise FoveaError(f"no recipe {name!r} in pipeline/recipes{closest(name, known)}")
    params.load(known[name])
    if target.exists() and not force and _has_edits(target, list(known.values())):
        raise FoveaError(
            f"{target}: has edits that are in no recipe and no commit; commit them, copy them "
            "to pipeline/recipes/<name>.yaml, or overwrite them with "
            f"`make recipe NAME={name} FORCE=1`"
        )
    write_atomic(target, known[name].read_bytes())


def _has_edits(target: Path, known: list[Path]) -> bool:
    """Whether overwriting `target` would lose edits."""
    text = target.read_bytes()
    if any(text == path.read_bytes() for path in known):
        return False
    git = subprocess.run(
        ["git", "show", f"HEAD:./{target.name}"],
        cwd=target.absolute().parent,
        capture_output=True,
        check=False,
    )
    return git.returncode != 0 or git.stdout != text


def listing() -> str:
    """Every recipe, with the comment at its head."""
    texts = {name: path.read_text("utf-8").splitlines() for name, path in recipes().items()}
    heads = {
        name: " ".join(line[1:].strip() for line in takewhile(lambda s: s.startswith("#"), lines))
        for name, lines in texts.items()
    }
    wrapper = textwrap.TextWrapper(100, subsequent_indent="    ", break_on_hyphens=False)
    return "\n\n".join(wrapper.fill(f"{name}: {head}") for name, head in heads.items())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.commands.recipe", description=use.__doc__
    )
    parser.add_argument("name", nargs="?", help="a recipe; without it, a list of all")
    parser.add_argument("--force", action="store_true", help="overwrite edits of params.yaml")
    arguments = parser.parse_args()
    if arguments.name is None:
        print(f"{listing()}\n\n`make recipe NAME=<one of these>` makes it params.yaml")
        return
    with plain_errors():
        use(arguments.name, force=arguments.force)
    print(f"params.yaml is now pipeline/recipes/{arguments.name}.yaml; `dvc repro` builds it")


if __name__ == "__main__":
    main()
