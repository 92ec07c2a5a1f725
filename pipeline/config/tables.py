"""The tables of params.yaml: what an entry of each holds, and what it becomes once it is checked.

An entry has the keys of its table (a dataclass here), those of the `Config` in the file that its
word names (`model: mae` -> `pretrain/encoders/mae.py`), and optional `features`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from datasets.errors import FoveaError
from pipeline.config.typed import closest


@dataclass(frozen=True)
class Frames:
    """Frames of `env`, `count` of them, from `source` (a file of `datasets/sources/`).

    An `env` may say how it is shown: `metaworld/reach?view=upright&camera=corner2`.
    """

    env: str
    source: str
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count: {self.count} frames; at least 1")


@dataclass(frozen=True)
class Annotations:
    """Clicks on `count` of the frames, turned into maps (a file of `datasets/annotation/`)."""

    frames: str
    annotator: str
    count: int = 30

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count: {self.count} annotated frames; at least 1")


@dataclass(frozen=True)
class Predictors:
    """Image -> saliency, learned from `data` or not (`model` is a file of `pretrain/saliency/`)."""

    data: str
    model: str


@dataclass(frozen=True)
class Saliency:
    """The frames of `frames`, each with the map that the artifact `by` gives it."""

    frames: str
    by: str


@dataclass(frozen=True)
class Encoders:
    """An encoder pretrained on `data` (`model` is a file of `pretrain/encoders/`)."""

    data: str
    model: str


@dataclass(frozen=True)
class Policies:
    """`seeds` policies of `agent` (a file of `rl/agents/`) on the frozen `encoder`.

    `checkpoint_every` counts environment steps between kept weights; `games` and `epsilon` are the
    evaluation's (SPIRL, App. B.3: 50 environments; five trials) and retrain nothing. `epsilon` is
    the share of random actions in it: SPIRL's unless said, for every agent; ViSaRL's SAC takes none
    (`epsilon: 0.0`).
    """

    env: str
    encoder: str
    agent: str
    seeds: int = 5
    checkpoint_every: int = 10_000
    games: int = 50
    epsilon: float = 0.001

    def __post_init__(self) -> None:
        for key in ("seeds", "checkpoint_every", "games"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: {getattr(self, key)}; at least 1")
        if not 0 <= self.epsilon <= 1:
            raise ValueError(f"epsilon: {self.epsilon}; a probability, 0 to 1")


@dataclass(frozen=True)
class Table:
    """How the entries of one table are read."""

    keys: type
    word: str | None = None  # the key whose value names a file ...
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
# Keys of a policy that change how it is judged, never what it becomes.
EVALUATION_KEYS = frozenset({"games", "epsilon"})


@dataclass(frozen=True)
class Entry:
    """One entry of one table, checked; `keys` is the table's dataclass, `config` the word's."""

    table: str
    name: str
    keys: Any
    config: Any  # None for a table without a word
    features: dict[str, Any]  # as written, checked against the dataclasses that take them

    @property
    def label(self) -> str:
        """`encoders/frostbite-mae`: its table and name, and its folder in artifacts/."""
        return f"{self.table}/{self.name}"

    def inputs(self) -> dict[str, str]:
        """Key -> label of the artifact it names (`data` -> `frames/frostbite`)."""
        return {
            key: label_of(getattr(self.keys, key), tables)
            for key, tables in TABLES[self.table].inputs.items()
        }

    def resolved(self, without: frozenset[str] = frozenset()) -> dict[str, Any]:
        """The entry with every default written out, JSON-able, less the keys in `without`."""
        written = dataclasses.asdict(self.keys)
        if self.config is not None:
            written |= dataclasses.asdict(self.config)
        if self.features:
            written["features"] = dict(self.features)
        return {key: value for key, value in written.items() if key not in without}


@dataclass(frozen=True)
class Params:
    """A whole checked params.yaml."""

    tables: dict[str, dict[str, Entry]]

    def entry(self, table: str, name: str) -> Entry:
        """One entry. Raises FoveaError with near misses when there is none of that name."""
        if name not in self.tables[table]:
            raise FoveaError(
                f"params.yaml: no entry {name!r} in {table}{closest(name, self.tables[table])}"
            )
        return self.tables[table][name]

    def __iter__(self) -> Iterator[Entry]:
        for entries in self.tables.values():
            yield from entries.values()


def word_module(package: str, word: str) -> ModuleType:
    """The file that a word names. FoveaError with near misses when there is no such file."""
    parent = importlib.import_module(package)
    folder = Path(parent.__path__[0])
    words = sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))
    if word not in words:
        raise FoveaError(
            f"{word!r} is no file of {package.replace('.', '/')}/{closest(word, words)}"
        )
    module = importlib.import_module(f"{package}.{word}")
    if not hasattr(module, "Config"):
        raise FoveaError(f"{word!r} is a part, not a method: {package}/{word}.py has no Config")
    return module


def feature_types(model: str, agent: str, features: Mapping[str, object]) -> tuple[type, type]:
    """The dataclasses that a policy's `features` are read into, for an encoder and an agent.

    The encoder's own `Features` come first, then the `Config` of the net that the agent puts on
    them: several tokens need another than one, and `features`, of the encoder and above it of the
    policy, say which they are. Raises FoveaError where the agent has no net for that kind, or
    there is no such word.
    """
    from rl import agents, nets  # and with them torch, which takes seconds: not every stage does

    module = word_module("pretrain.encoders", model)
    word_module("rl.agents", agent)
    own = {field.name for field in dataclasses.fields(module.Features)}
    try:
        written = module.Features(**{key: value for key, value in features.items() if key in own})
    except (TypeError, ValueError):  # reported where they are read
        written = module.Features()
    net = agents.net_for(agent, written.kind)
    return (module.Features, nets.config_for(net))


def label_of(value: str, allowed: tuple[str, ...]) -> str:
    """`drawer-open` or `frames/drawer-open` -> `frames/drawer-open`.

    A key that can only name one table is written without it, as in the design; `data` and `by` can
    name several and are written with it.
    """
    return f"{allowed[0]}/{value}" if len(allowed) == 1 else value
