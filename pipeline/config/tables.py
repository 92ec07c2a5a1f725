"""The tables of params.yaml: the keys of their entries, and a checked entry.

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

    An `env` may set how it is rendered: `metaworld/reach?view=upright&camera=corner2`.
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
    """Image -> saliency, fitted to `data` (`model` is a file of `pretrain/saliency/`)."""

    data: str
    model: str


@dataclass(frozen=True)
class Saliency(Checked):
    """The frames of `frames`, each with its map by the artifact `by`."""

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

    `checkpoint_every` counts environment steps between saved weights. `games`, `epsilon` and
    `sample` are the evaluation's (SPIRL, App. B.3: 50 environments; five trials), and a change of
    them retrains nothing. `epsilon` is the share of random actions: SPIRL's by default, for every
    agent; ViSaRL's SAC has none (`epsilon: 0.0`). `sample` samples the others from an on-policy
    agent's policy, in place of the most probable ones. `evaluate_env` is where the episodes are
    played, if not in `env`: another form of the game, or another game with the same actions. With
    `attention_threshold`, the last weights of a seed also play with hard attention (S3TA, A.6).
    """

    env: str
    encoder: str
    agent: str
    seeds: Count = 5
    checkpoint_every: Count = 10_000
    games: Count = 50
    epsilon: Fraction = 0.001
    sample: bool = False
    evaluate_env: str | None = None
    attention_threshold: Fraction | None = None


@dataclass(frozen=True)
class Exams(Checked):
    """The scores of the source of saliency `by` on the annotations `truth`, beside controls.

    With `keypoints`, that many of each frame are also matched with the annotated objects.
    """

    truth: str
    by: str
    keypoints: Count | None = None


@dataclass(frozen=True)
class Table:
    """The form of one table's entries."""

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
        inputs={"frames": ("frames",), "by": ("predictors", "encoders", "policies")},
    ),
    "encoders": Table(Encoders, "model", "pretrain.encoders", {"data": ("frames", "saliency")}),
    "policies": Table(Policies, "agent", "rl.agents", {"encoder": ("encoders",)}),
    "exams": Table(
        Exams,
        inputs={"truth": ("annotations",), "by": ("predictors", "encoders", "policies")},
    ),
}
BARE = {"frames": "frames", "encoder": "encoders"}  # keys whose values have no table in them
# Encoders without training and data, by the name of their model: their artifacts are committed, so
# that every policy can name them.
COMMITTED = ("pixels", "state")
# Keys of a policy that change its evaluation and not its training.
EVALUATION_KEYS = frozenset({"games", "epsilon", "sample", "evaluate_env", "attention_threshold"})


@dataclass(frozen=True)
class NetChoice:
    """The network of a policy's agent on the features: a file of `rl/nets/`."""

    name: str
    config: Any  # of the file's type Config


@dataclass(frozen=True)
class Entry:
    """One checked entry of one table; `keys` is the table's dataclass, `config` its file's."""

    table: str
    name: str
    keys: Any
    config: Any  # None for a table without components
    features: dict[str, Any] = field(default_factory=dict)  # without defaults
    net: NetChoice | None = None  # a policy's; by default its agent's

    @property
    def label(self) -> str:
        """`encoders/frostbite-mae`: table and name, and the folder in artifacts/."""
        return f"{self.table}/{self.name}"

    def inputs(self) -> dict[str, str]:
        """Key -> label of the artifact it names (`data` -> `frames/frostbite`)."""
        values = {key: getattr(self.keys, key) for key in TABLES[self.table].inputs}
        return {key: label_of(key, value) for key, value in values.items() if value}

    def resolved(self, without: frozenset[str] = frozenset()) -> dict[str, Any]:
        """The entry with all defaults, JSON-able, except the keys in `without`."""
        values = dataclasses.asdict(self.keys)
        if self.config is not None:
            values |= dataclasses.asdict(self.config)
        if self.features:
            values["features"] = dict(self.features)
        if self.net is not None:
            values["net"] = {"name": self.net.name, **dataclasses.asdict(self.net.config)}
        return {key: value for key, value in values.items() if key not in without}


@dataclass(frozen=True)
class Params:
    """A whole checked params.yaml; iterates over its entries, without the committed encoders."""

    tables: dict[str, dict[str, Entry]]

    def find(self, table: str, name: str) -> Entry | None:
        """An entry, or a committed encoder; None if there is none of that name."""
        if table == "encoders" and name in COMMITTED:
            return committed_entry(name)
        return self.tables.get(table, {}).get(name)

    def entry(self, table: str, name: str) -> Entry:
        """An entry, or a committed encoder. Raises FoveaError with similar names without one."""
        entry = self.find(table, name)
        if entry is None:
            raise FoveaError(
                f"params.yaml: no entry {name!r} in {table}{closest(name, self.tables[table])}"
            )
        return entry

    def __iter__(self) -> Iterator[Entry]:
        for entries in self.tables.values():
            yield from entries.values()


def committed_entry(name: str) -> Entry:
    """The entry of a committed encoder, as in its manifest: a model without data."""
    config = component("pretrain.encoders", name).Config()
    return Entry("encoders", name, Encoders(data="", model=name), config)


def component(package: str, name: str) -> ModuleType:
    """The module of a component. Raises FoveaError with similar names without such a file."""
    parent = importlib.import_module(package)
    files = Path(parent.__path__[0]).glob("*.py")
    names = sorted(path.stem for path in files if path.stem[0] not in "._")
    if name not in names:
        raise FoveaError(
            f"{name!r} is not a file of {package.replace('.', '/')}/{closest(name, names)}"
        )
    module = importlib.import_module(f"{package}.{name}")
    if not hasattr(module, "Config"):
        raise FoveaError(f"{name!r} is not a component: {package}/{name}.py has no Config")
    return module


def label_of(key: str, value: str) -> str:
    """The label of a key's value: `frames: drawer-open` is `frames/drawer-open`.

    Only the value of a key with the name of its table has no table in it.
    """
    return f"{BARE[key]}/{value}" if key in BARE else value
