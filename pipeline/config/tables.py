"""The tables of params.yaml: what an entry of each holds, and what it becomes once it is checked.

An entry has the keys of its table (a dataclass here) and those of the `Config` in the file that it
names (`model: mae` -> `pretrain/encoders/mae.py`). An encoder may have `features`, the `Features`
of its file. A policy may override them, key by key, and may choose its agent's network with
`net: {name: tokens, pad: masked}`: a file of `rl/nets/` and keys of its `Config`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from datasets.checked import Checked, Count, Fraction
from datasets.errors import FoveaError
from pipeline.config.typed import closest


@dataclass(frozen=True)
class Frames(Checked):
    """Frames of `env`, `count` of them, from `source` (a file of `datasets/sources/`).

    An `env` may say how it is shown: `metaworld/reach?view=upright&camera=corner2`.
    """

    env: str
    source: str
    count: Count


@dataclass(frozen=True)
class Annotations(Checked):
    """Clicks on `count` of the frames, rendered as maps (a file of `datasets/annotation/`)."""

    frames: str
    annotator: str
    count: Count = 30


@dataclass(frozen=True)
class Predictors(Checked):
    """Image -> saliency, learned from `data` or not (`model` is a file of `pretrain/saliency/`)."""

    data: str
    model: str


@dataclass(frozen=True)
class Saliency(Checked):
    """The frames of `frames`, each with the map that the artifact `by` gives it."""

    frames: str
    by: str


@dataclass(frozen=True)
class Encoders(Checked):
    """An encoder pretrained on `data` (`model` is a file of `pretrain/encoders/`)."""

    data: str
    model: str


@dataclass(frozen=True)
class Policies(Checked):
    """`seeds` policies of `agent` (a file of `rl/agents/`) on the frozen `encoder`.

    `checkpoint_every` counts environment steps between kept weights; `games` and `epsilon` are the
    evaluation's (SPIRL, App. B.3: 50 environments; five trials) and retrain nothing. `epsilon` is
    the share of random actions in it: SPIRL's by default, for every agent; ViSaRL's SAC takes none
    (`epsilon: 0.0`).
    """

    env: str
    encoder: str
    agent: str
    seeds: Count = 5
    checkpoint_every: Count = 10_000
    games: Count = 50
    epsilon: Fraction = 0.001


@dataclass(frozen=True)
class Table:
    """How the entries of one table are read."""

    keys: type
    component: str | None = None  # the key whose value names a file ...
    package: str = ""  # ... of this package
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # key -> tables it may name


TABLES: dict[str, Table] = {
    "frames": Table(Frames, "source", "datasets.sources"),
    "annotations": Table(Annotations, "annotator", "datasets.annotation", {"frames": ("frames",)}),
    "predictors": Table(
        Predictors,
        "model",
        "pretrain.saliency",
        {"data": ("annotations", "saliency", "frames")},
    ),
    "saliency": Table(
        Saliency,
        inputs={"frames": ("frames",), "by": ("predictors", "encoders")},
    ),
    "encoders": Table(Encoders, "model", "pretrain.encoders", {"data": ("frames", "saliency")}),
    "policies": Table(Policies, "agent", "rl.agents", {"encoder": ("encoders",)}),
}
# Encoders that learn nothing and need no data, by the name of their model: their artifacts are
# committed, so that every policy can name them.
COMMITTED = ("pixels", "state")
# Keys of a policy that change how it is judged, never what it becomes.
EVALUATION_KEYS = frozenset({"games", "epsilon"})


@dataclass(frozen=True)
class NetChoice:
    """The network that a policy's agent puts on the features: a file of `rl/nets/`."""

    name: str
    config: Any  # of the file's type Config


@dataclass(frozen=True)
class Entry:
    """One entry of one table, checked; `keys` is the table's dataclass, `config` its file's."""

    table: str
    name: str
    keys: Any
    config: Any  # None for a table without components
    features: dict[str, Any] = field(default_factory=dict)  # as written
    net: NetChoice | None = None  # a policy's, its agent's default where none is written

    @property
    def label(self) -> str:
        """`encoders/frostbite-mae`: its table and name, and its folder in artifacts/."""
        return f"{self.table}/{self.name}"

    def inputs(self) -> dict[str, str]:
        """Key -> label of the artifact it names (`data` -> `frames/frostbite`)."""
        named = {key: getattr(self.keys, key) for key in TABLES[self.table].inputs}
        allowed = TABLES[self.table].inputs
        return {key: label_of(value, allowed[key]) for key, value in named.items() if value}

    def resolved(self, without: frozenset[str] = frozenset()) -> dict[str, Any]:
        """The entry with every default written out, JSON-able, less the keys in `without`."""
        written = dataclasses.asdict(self.keys)
        if self.config is not None:
            written |= dataclasses.asdict(self.config)
        if self.features:
            written["features"] = dict(self.features)
        if self.net is not None:
            written["net"] = {"name": self.net.name, **dataclasses.asdict(self.net.config)}
        return {key: value for key, value in written.items() if key not in without}


@dataclass(frozen=True)
class Params:
    """A whole checked params.yaml; iterating gives its entries, without the committed encoders."""

    tables: dict[str, dict[str, Entry]]

    def find(self, table: str, name: str) -> Entry | None:
        """One entry, or a committed encoder; None where there is none of that name."""
        if table == "encoders" and name in COMMITTED:
            return committed(name)
        return self.tables.get(table, {}).get(name)

    def entry(self, table: str, name: str) -> Entry:
        """The same; raises FoveaError with near misses when there is none."""
        entry = self.find(table, name)
        if entry is None:
            raise FoveaError(
                f"params.yaml: no entry {name!r} in {table}{closest(name, self.tables[table])}"
            )
        return entry

    def __iter__(self) -> Iterator[Entry]:
        for entries in self.tables.values():
            yield from entries.values()


def committed(name: str) -> Entry:
    """The entry of a committed encoder, as its manifest has it: a model without data."""
    config = component("pretrain.encoders", name).Config()
    return Entry("encoders", name, Encoders(data="", model=name), config)


def component(package: str, name: str) -> ModuleType:
    """The file of a component. FoveaError with near misses when there is no such file."""
    parent = importlib.import_module(package)
    files = Path(parent.__path__[0]).glob("*.py")
    names = sorted(path.stem for path in files if path.stem[0] not in "._")
    if name not in names:
        raise FoveaError(
            f"{name!r} is no file of {package.replace('.', '/')}/{closest(name, names)}"
        )
    module = importlib.import_module(f"{package}.{name}")
    if not hasattr(module, "Config"):
        raise FoveaError(f"{name!r} is a part, not a method: {package}/{name}.py has no Config")
    return module


def label_of(value: str, allowed: tuple[str, ...]) -> str:
    """`drawer-open` or `frames/drawer-open` -> `frames/drawer-open`.

    A key that can only name one table is written without it, as in the design; `data` and `by` can
    name several and are written with it.
    """
    return f"{allowed[0]}/{value}" if len(allowed) == 1 else value
