"""`params.yaml` -> checked entries; every mistake is listed before any work starts.

What an entry leaves out has the default written beside the method, which is the paper's value.
`python -m pipeline.params` checks the whole file, names of inputs included.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import envs
from datasets.errors import FoveaError
from datasets.files import write_atomic
from pipeline.config import closure
from pipeline.config.misfits import misfits
from pipeline.config.tables import TABLES, Entry, Params, feature_types, label_of, word_module
from pipeline.config.typed import closest, flatten, read_into
from pipeline.runtime import artifact

PARAMS = Path("params.yaml")
CHECKED = artifact.ROOT / ".work/params.checked"  # digest of what was found without mistakes
NAME = re.compile(r"[a-z0-9-]+")


def load(path: Path = PARAMS) -> Params:
    """Read and check a whole params.yaml.

    Raises:
        FoveaError: naming the file, and listing every mistake in it with table, entry and key.
    """
    written = read_yaml(path)
    mistakes: list[str] = []
    tables: dict[str, dict[str, Entry]] = {}
    for table in TABLES:
        if not isinstance(written.get(table), Mapping):
            mistakes.append(
                f"{table}: missing or not a table; an empty one stands as `{table}: {{}}`"
            )
    for table in written:
        if table not in TABLES:
            mistakes.append(f"{table}: unknown table{closest(table, TABLES)}")
    encoders = _encoders(written)
    for table in TABLES:
        tables[table] = {}
        entries = written.get(table)
        for name, entry in entries.items() if isinstance(entries, Mapping) else ():
            where = f"{table}.{name}"
            found, wrong = _read_entry(table, str(name), entry, encoders)
            mistakes += [f"{where}{'.' if m[0] != ':' else ''}{m}" for m in wrong]
            if found:
                tables[table][str(name)] = found
    mistakes += _dangling(tables, written)
    mistakes += misfits(Params(tables))
    if mistakes:
        raise FoveaError("\n  ".join([f"{path}: {len(mistakes)} mistake(s)", *mistakes]))
    return Params(tables)


def entry(table: str, name: str, known: str) -> Entry:
    """One entry of params.yaml, which has no mistake anywhere.

    A check of the whole file imports every method that it names, which takes longer than many a
    stage works. So where `known`, the state of now, is remembered, only the entry is read.

    Raises:
        FoveaError: as `load` does, or there is no such entry.
    """
    if CHECKED.is_file() and CHECKED.read_text() == known:
        written = read_yaml(PARAMS)
        if name in written[table]:
            found, _ = _read_entry(table, name, written[table][name], _encoders(written))
            if found:
                return found
    return load().entry(table, name)


def remember(known: str) -> None:
    """Note that params.yaml had no mistakes in this state."""
    CHECKED.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(CHECKED, known.encode())


def state() -> str:
    """sha256 over all that decides what a check of params.yaml finds: the file, code, versions."""
    seen = hashlib.sha256(json.dumps(artifact.versions()).encode())
    for path in [*([PARAMS] if PARAMS.is_file() else []), *closure.sources()]:
        seen.update(hashlib.sha256(path.read_bytes()).digest())
    return seen.hexdigest()


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML 1.2 mapping, as DVC reads it (`1e-4` is a number). FoveaError if it is not one."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not path.exists():
        raise FoveaError(f"{path}: no such file; `make recipe NAME=quick` writes one")
    try:
        written = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise FoveaError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(written, dict):
        raise FoveaError(f"{path}: holds no tables; `make recipe NAME=quick` writes a good one")
    return written


def _read_entry(
    table: str, name: str, written: object, encoders: Mapping[str, Mapping[str, Any]]
) -> tuple[Entry | None, list[str]]:
    """One entry, or its mistakes as `key: what` (or `: what` where it is about the entry)."""
    if not NAME.fullmatch(name):
        return None, [": a name is made of a-z, 0-9 and '-'"]
    if not isinstance(written, Mapping):
        return None, [": not a mapping of keys to values"]
    rules = TABLES[table]
    config: type | None = None
    mistakes: list[str] = []
    if rules.word and isinstance(written.get(rules.word), str):
        try:
            config = word_module(rules.package, written[rules.word]).Config
        except FoveaError as error:
            return None, [f"{rules.word}: {error}"]
    nested = {"features"} if table in ("encoders", "policies") else set()
    flat = {key: value for key, value in written.items() if key not in nested}
    parts = read_into([rules.keys, *([config] if config else [])], flat, mistakes, extra=nested)
    features = written.get("features", {})
    if not isinstance(features, Mapping):
        mistakes.append("features: not a mapping of keys to values")
        features = {}
    encoder = written if table == "encoders" else encoders.get(str(written.get("encoder")), {})
    model, own = encoder.get("model"), encoder.get("features", {})
    own = own if isinstance(own, Mapping) else {}
    if features and isinstance(model, str):
        try:
            types: tuple[type, ...] = (
                (word_module("pretrain.encoders", model).Features,)
                if table == "encoders"
                else feature_types(model, str(written.get("agent")), {**own, **features})
            )
        except FoveaError:  # an unknown model is told where it stands, a misfit at the end
            types = ()
        if types:
            read_into(types, features, mistakes, prefix="features.")
    if isinstance(written.get("env"), str):
        try:
            (envs.members if table == "frames" else envs.check)(written["env"])
        except FoveaError as error:
            mistakes.append(f"env: {error}")
    if mistakes:
        return None, mistakes
    return Entry(table, name, parts[0], parts[1] if config else None, flatten(features)), []


def _encoders(written: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The entries of encoders, as far as they can be read, so that `features` can be checked."""
    encoders = written.get("encoders")
    return {
        str(name): entry
        for name, entry in (encoders.items() if isinstance(encoders, Mapping) else ())
        if isinstance(entry, Mapping)
    }


def _dangling(tables: dict[str, dict[str, Entry]], written: Mapping[str, Any]) -> list[str]:
    """Inputs that name no entry (entries with mistakes of their own count as there)."""
    known = [f"{table}/{name}" for table in TABLES for name in written.get(table) or {}]
    mistakes = []
    for entries in tables.values():
        for entry in entries.values():
            for key, allowed in TABLES[entry.table].inputs.items():
                value = getattr(entry.keys, key)
                fitting = [label for label in known if label.split("/")[0] in allowed]
                if label_of(value, allowed) not in fitting:
                    shown = [_shown(label, allowed) for label in fitting]
                    mistakes.append(
                        f"{entry.table}.{entry.name}.{key}: {value!r} names no entry of "
                        f"{' or '.join(allowed)}{closest(value, shown)}"
                    )
    return mistakes


def _shown(label: str, allowed: tuple[str, ...]) -> str:
    return label.split("/", 1)[1] if len(allowed) == 1 else label


def main() -> None:
    """Check params.yaml, or the files named on the command line, and say what is in them."""
    failed = False
    for path in [Path(arg) for arg in sys.argv[1:]] or [PARAMS]:
        try:
            known = state()
            params = load(path)
            if path == PARAMS:
                remember(known)
            print(f"{path}: {sum(1 for _ in params)} entries, no mistakes")
        except FoveaError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
    sys.exit(failed)


if __name__ == "__main__":
    main()
