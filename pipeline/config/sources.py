"""Checks of a source of saliency and the frames that it labels or is scored on."""

from __future__ import annotations

from datasets import envs
from pipeline.config.nets import attends
from pipeline.config.tables import TABLES, Entry, Params, component


def odd_source(where: str, by: str, frames: Entry | None, params: Params) -> list[str]:
    """The reasons why the source `by` of the key `where` cannot label these frames: it has no maps,
    or is for other images. Empty if the source does not exist, which is listed elsewhere.
    """
    source = params.find(*_split(by))
    if source is None or source.table not in TABLES["exams"].inputs["by"]:
        return []
    if source.table == "policies":
        return _odd_watched(where, source, params) or _odd_images(where, source, source, frames)
    if source.table == "encoders" and not _can_label(source):
        return [
            f"{where}: {by}, of model {source.keys.model}, has no saliency map; name one with a "
            "map, such as of model mae"
        ]
    return _odd_images(where, source, frames_of(source, params), frames)


def odd_carried(encoder: Entry, params: Params) -> list[str]:
    """The reason why an encoder that needs a source of saliency when acting cannot copy it."""
    table, name = _split(encoder.keys.data)
    labelled = params.find(table, name) if table == "saliency" else None
    if not (encoder.config.needs_saliency and labelled):
        return []
    if not labelled.keys.by.startswith("policies/"):
        return []
    return [
        f"encoders.{encoder.name}.data: the maps of {labelled.label} are the attention of "
        f"{labelled.keys.by}, which cannot label single frames when acting; train a predictor on "
        f"them (data: {labelled.label}, model: student), and name maps of that"
    ]


def odd_exam(exam: Entry, params: Params) -> list[str]:
    """The mistakes of an exam: a source that cannot label the frames, or was trained on annotations
    of them; more keypoints than cells, another number than the source's own, or no objects.
    """
    where, truth = f"exams.{exam.name}", params.find(*_split(exam.keys.truth))
    if truth is None or truth.table != "annotations":
        return []  # listed elsewhere
    frames = params.find("frames", truth.keys.frames)
    mistakes = odd_source(f"{where}.by", exam.keys.by, frames, params)
    source, k = params.find(*_split(exam.keys.by)), exam.keys.keypoints
    made_from = made_from_of(source, params) if source else set()
    if frames and frames.label in made_from and any(n[:12] == "annotations/" for n in made_from):
        mistakes.append(
            f"{where}.by: {exam.keys.by} is trained on annotations of {frames.label} itself; name "
            "a truth on other frames"
        )
    if k is not None:
        mistakes += _odd_keypoints(f"{where}.keypoints", k, truth, source)
    return mistakes


def _odd_keypoints(where: str, k: int, truth: Entry, source: Entry | None) -> list[str]:
    from pretrain.metrics.keypoints import CELLS  # and with it torch, which takes seconds

    mistakes, cells = [], CELLS[0] * CELLS[1]
    if k > cells:
        mistakes.append(f"{where}: {k}, must be at most the {cells} cells of {CELLS[0]}x{CELLS[1]}")
    if truth.keys.annotator != "objects":
        mistakes.append(
            f"{where}: {k}, needs a truth of `annotator: objects`, with one point an object; "
            f"that of {truth.label} is {truth.keys.annotator}"
        )
    own = source.config.own_keypoints if source and source.table == "encoders" else None
    if own is not None and source and k != own:
        mistakes.append(
            f"{where}: {k}, but {source.label} has {own} keypoints of its own, a number that is "
            "fixed in training"
        )
    return mistakes


def _odd_watched(where: str, policy: Entry, params: Params) -> list[str]:
    """The reason why a policy has no maps: its net attends to no part of the image."""
    encoder = params.find("encoders", policy.keys.encoder)
    if encoder is None or policy.net is None or attends(policy, encoder):
        return []
    return [
        f"{where}: {policy.label}, its net {policy.net.name} on {encoder.label}, attends to no "
        "part of the image; name one that does, such as one with a mask"
    ]


def _odd_images(where: str, source: Entry, own: Entry | None, frames: Entry | None) -> list[str]:
    """Differences between these frames and `own`, whose images the source is for."""
    if not frames or not own:
        return []
    sizes = envs.image_shape(own.keys.env), envs.image_shape(frames.keys.env)
    if sizes[0] != sizes[1]:
        return [
            f"{where}: {source.label} is for images {sizes[0]}, those of {frames.label} are "
            f"{sizes[1]}"
        ]
    return [
        f"{where}: {key} is {value} in {frames.label}, but {other} in {source.label}'s own frames; "
        f"write ?{key}={other} in {frames.label}, or name another source"
        for key, value, other in odd_views(frames, own)
    ]


def odd_views(here: Entry, there: Entry) -> list[tuple[str, str, str]]:
    """Differences of rendering between two environments of a suite: key, value here, there."""
    options, other = envs.rendering(here.keys.env), envs.rendering(there.keys.env)
    if options["suite"] != other["suite"]:
        return []
    return [(key, value, other[key]) for key, value in options.items() if value != other[key]]


def frames_of(entry: Entry, params: Params) -> Entry | None:
    """The frames of an entry's data; None without any, or where an entry between has mistakes."""
    table, _, name = entry.keys.data.partition("/")
    if table in ("annotations", "saliency"):
        data = params.find(table, name)
        name = data.keys.frames if data else ""
    return params.find("frames", name)


def made_from_of(entry: Entry, params: Params) -> set[str]:
    """The labels of an entry's inputs, of their inputs, and so on."""
    labels: set[str] = set()
    todo = [entry]
    while todo:
        for label in todo.pop().inputs().values():
            source = params.find(*_split(label))
            if label not in labels and source:
                todo.append(source)
            labels.add(label)
    return labels


def _can_label(encoder: Entry) -> bool:
    """Whether an encoder has a saliency map of its own, or carries a source of saliency."""
    own = component("pretrain.encoders", encoder.keys.model).Encoder
    return bool(own.labels or encoder.config.needs_saliency)


def _split(label: str) -> tuple[str, str]:
    table, _, name = label.partition("/")
    return table, name
