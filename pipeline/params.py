"""`params.yaml` -> checked entries and their code stamps; every mistake is listed before any work.

Keys that an entry leaves out have the default in the method's file, which is the paper's value.
`python -m pipeline.params` is the stage `code`, on which all others depend. It checks the whole
file, names of inputs included, and writes `artifacts/.code/<stage>-<entry>` for each stage instance
(pipeline/config/closure.py). Beside the stamps it writes a copy of the checked file, for stages
that run without DVC. It also writes `checked`, on which every instance depends: the stamp of an
invalid name may be a path anywhere, and DVC must not run an instance of that name.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import envs
from datasets.errors import FoveaError, quoted
from datasets.files import write_atomic
from pipeline.config import closure
from pipeline.config.misfits import misfits
from pipeline.config.tables import (
    BARE,
    COMMITTED,
    TABLES,
    Entry,
    NetChoice,
    Params,
    committed_entry,
    component,
    label_of,
)
from pipeline.config.typed import closest, convert, flatten, read_into
from pipeline.config.yaml_file import read_yaml
from pipeline.runtime import artifact
from pipeline.runtime.process import DVC_STAGE

PARAMS = Path("params.yaml")
STAMPS = artifact.ROOT / ".code"
CHECKED = STAMPS / "checked"
NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")  # also a file's name, and an argument of a command
NESTED_KEYS = {"encoders": {"features"}, "policies": {"features", "net"}}  # with own dataclasses


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
                f"{table}: missing or not a table; write an empty one as `{table}: {{}}`"
            )
    for table in written:
        if table not in TABLES:
            mistakes.append(f"{table}: unknown table{closest(str(table), TABLES)}")
    encoders = _encoders(written)
    for table in TABLES:
        tables[table] = {}
        entries = written.get(table)
        for name, content in entries.items() if isinstance(entries, Mapping) else ():
            entry, wrong = _read_entry(table, name, content, encoders)
            where = f"{table}.{str(name)[:80]}"
            mistakes += [f"{where}{'.' if m[0] != ':' else ''}{m}" for m in wrong]
            if entry:
                tables[table][entry.name] = entry
    mistakes += _dangling(tables, written)
    mistakes += misfits(Params(tables))
    if mistakes:
        raise FoveaError("\n  ".join([f"{path}: {len(mistakes)} mistake(s)", *mistakes]))
    return Params(tables)


def entry_of(stage: str, table: str, name: str) -> Entry:
    """The entry for a stage to work on, of a params.yaml without mistakes.

    A check of the whole file imports every method that it names, which takes longer than many
    stages. So only the entry is read if the stage `code` has run: if params.yaml equals the checked
    copy, and the entry's stamp that of the current code.

    Raises:
        FoveaError: as `load` does, or there is no such entry.
    """
    if table == "encoders" and name in COMMITTED:
        raise FoveaError(f"encoders/{name}: is committed; there is nothing to build")
    return _checked_entry(stage, table, name) or write_stamps().entry(table, name)


def entry_now(table: str, name: str) -> Entry | None:
    """An entry of the current params.yaml; None if there is none, or it has mistakes."""
    try:
        written = read_yaml(PARAMS)
        content = written[table][name]
    except (FoveaError, LookupError, TypeError):
        return None
    return _read_entry(table, name, content, _encoders(written))[0]


def write_stamps() -> Params:
    """Check params.yaml, write the stamps of all its stage instances, and delete all others."""
    content = PARAMS.read_bytes() if PARAMS.exists() else b""
    params = load()
    stamps = {CHECKED.name: "params.yaml: no mistakes\n", "report": closure.stamp("report")}
    for entry in params:
        for stage in stages_of(entry):
            stamps[f"{stage}-{entry.name}"] = closure.stamp(stage, entry)
    STAMPS.mkdir(parents=True, exist_ok=True)
    with _locked(STAMPS):  # stages without DVC may begin at once
        for name, text in stamps.items():
            write_atomic(STAMPS / name, text.encode())
        for path in STAMPS.iterdir():
            if path.name not in {*stamps, PARAMS.name}:
                path.unlink(missing_ok=True)
        write_atomic(STAMPS / PARAMS.name, content)
    return params


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # and so unlocks it


def check_folders() -> None:
    """Raise FoveaError for a folder of artifacts that DVC cannot record, before any work."""
    for folder in (artifact.ROOT, *(artifact.ROOT / table for table in artifact.STAGES)):
        if folder.is_symlink():
            raise FoveaError(
                f"{folder}: a symbolic link, behind which DVC records nothing; mount the other "
                "disk there (`mount --bind`), or run the stages without DVC"
            )


def stages_of(entry: Entry) -> list[str]:
    """The stages that work on an entry, in order."""
    return [artifact.STAGES[entry.table], *(["evaluate"] if entry.table == "policies" else [])]


def _checked_entry(stage: str, table: str, name: str) -> Entry | None:
    """An entry of the last checked file; None if params.yaml or the entry's code has changed."""
    copy, stamp = STAMPS / PARAMS.name, STAMPS / f"{stage}-{name}"
    if not (copy.is_file() and stamp.is_file() and PARAMS.is_file()):
        return None
    if copy.read_bytes() != PARAMS.read_bytes():
        return None
    entry = entry_now(table, name)
    return entry if entry and closure.stamp(stage, entry) == stamp.read_text() else None


def _read_entry(
    table: str, name: object, written: object, encoders: Mapping[str, Mapping[str, Any]]
) -> tuple[Entry | None, list[str]]:
    """One entry, or its mistakes as `key: mistake` (or `: mistake` about the whole entry)."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return None, [
            ": a name is a string of a-z, 0-9 and '-' that begins with a letter, at most 64 long"
        ]
    if table == "encoders" and name in COMMITTED:
        return None, [": is a committed encoder; give this entry another name"]
    if not isinstance(written, Mapping):
        return None, [": must be a mapping of keys to values"]
    rules, mistakes = TABLES[table], list[str]()
    kinds = [rules.keys]
    if rules.component and isinstance(written.get(rules.component), str):
        try:
            kinds.append(component(rules.package, written[rules.component]).Config)
        except FoveaError as error:
            return None, [f"{rules.component}: {error}"]
    nested = NESTED_KEYS.get(table, set())
    flat = {key: value for key, value in written.items() if key not in nested}
    keys, *config = read_into(kinds, flat, mistakes, extra=nested)
    features = _mapping(written, "features", mistakes)
    net: NetChoice | None = None
    if table == "encoders":
        _read_features(written.get("model"), {}, features, mistakes)
    elif table == "policies":
        encoder = encoders.get(str(written.get("encoder")), {})
        own = _mapping(encoder, "features", [])
        kind = _read_features(encoder.get("model"), own, features, mistakes)
        choice = _mapping(written, "net", mistakes)
        if kind and isinstance(written.get("agent"), str):
            net = _read_net(written["agent"], kind, choice, mistakes)
    for key in {"env", "evaluate_env"} & flat.keys():
        try:
            if isinstance(flat[key], str):
                (envs.members if table == "frames" else envs.check)(flat[key])
        except FoveaError as error:
            mistakes.append(f"{key}: {error}")
    if mistakes:
        return None, mistakes
    return Entry(table, name, keys, config[0] if config else None, flatten(features), net), []


def _mapping(written: Mapping[str, Any], key: str, mistakes: list[str]) -> Mapping[str, Any]:
    """The mapping under a key; empty without one."""
    value = written.get(key, {})
    if isinstance(value, Mapping):
        return value
    mistakes.append(f"{key}: {quoted(value)}, must be a mapping of keys to values")
    return {}


def _read_features(
    model: object, own: Mapping[str, Any], features: Mapping[str, Any], mistakes: list[str]
) -> str | None:
    """The kind of an encoder's features, where a policy's `features` override its `own`.

    None if it is unknown: the features have mistakes, or there is no such model (which is listed in
    the encoder's entry).
    """
    try:
        kind = component("pretrain.encoders", str(model)).Features
    except FoveaError:
        return None
    own_mistakes: list[str] = []  # listed in the encoder's entry
    read_into([kind], own, own_mistakes)
    merged = features if own_mistakes else {**own, **features}
    (final,) = read_into([kind], merged, mistakes, prefix="features.")
    return None if final is None else str(final.kind)


def _read_net(
    agent: str, kind: str, written: Mapping[str, Any], mistakes: list[str]
) -> NetChoice | None:
    """The network of an agent on features of a kind: the entry's, or the agent's default."""
    from rl import agents  # imports torch, which takes seconds, and not every stage needs it

    try:
        value = written["name"] if "name" in written else agents.net_for(agent, kind)
    except FoveaError as error:
        mistakes.append(f"agent: {error}")
        return None
    name, wrong = convert(value, str)
    if wrong:
        mistakes.append(f"net.name: {wrong}")
        return None
    try:
        module = component("rl.nets", name)
    except FoveaError as error:
        mistakes.append(f"net.name: {error}")
        return None
    if kind not in module.KINDS:
        mistakes.append(
            f"net.name: {name} is for {' or '.join(module.KINDS)}, but the encoder's features are "
            f"{kind}"
        )
    flat = {key: value for key, value in written.items() if key != "name"}
    (config,) = read_into([module.Config], flat, mistakes, prefix="net.", extra=["name"])
    return NetChoice(name, config)


def _encoders(written: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The encoders that policies can name, unchecked, for the check of `features`."""
    entries = written.get("encoders")
    return {
        str(name): entry
        for name, entry in (entries.items() if isinstance(entries, Mapping) else ())
        if isinstance(entry, Mapping)
    } | {name: {"model": name} for name in COMMITTED}


def _dangling(tables: dict[str, dict[str, Entry]], written: Mapping[str, Any]) -> list[str]:
    """A mistake for each input that names no entry; entries with mistakes count as existing."""
    known = [f"{table}/{name}" for table in TABLES for name in written.get(table) or {}]
    known += [committed_entry(name).label for name in COMMITTED]
    mistakes = []
    for entries in tables.values():
        for entry in entries.values():
            for key, sources in TABLES[entry.table].inputs.items():
                value = getattr(entry.keys, key)
                labels = [label for label in known if label.split("/")[0] in sources]
                if label_of(key, value) not in labels:
                    values = [label.split("/", 1)[1] if key in BARE else label for label in labels]
                    mistakes.append(
                        f"{entry.table}.{entry.name}.{key}: {quoted(value, 120)} names no entry of "
                        f"{' or '.join(sources)}{closest(value, values)}"
                    )
    return mistakes


def main() -> None:
    """Check params.yaml and write its stamps, or check the files named on the command line."""
    failed = False
    for path in [Path(arg) for arg in sys.argv[1:]] or [PARAMS]:
        try:
            params = write_stamps() if path == PARAMS else load(path)
            if DVC_STAGE in os.environ:
                check_folders()
            print(f"{path}: {sum(1 for _ in params)} entries, no mistakes")
        except FoveaError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
    sys.exit(failed)


if __name__ == "__main__":
    main()
