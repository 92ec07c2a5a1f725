"""Stage `pretrain`: frames or saliency -> a frozen encoder. `python -m pipeline.pretrain NAME`."""

from __future__ import annotations

from typing import Any

from pipeline.config.tables import component
from pipeline.parts.encoders import keep, read_columns
from pipeline.parts.training import train
from pipeline.runtime.stage import Stage, main
from pretrain.encoder import EncoderTraining
from pretrain.frozen import load_saliency
from pretrain.transforms.pairs import Pairs


def run(stage: Stage) -> dict[str, Any]:
    """Pretrain one entry's encoder, save it, export it, and save its panels."""
    module = component("pretrain.encoders", stage.entry.keys.model)
    config = stage.entry.config
    columns, frames = read_columns(stage, config.needs_saliency)
    pairs = Pairs(frames, config.pair_gap, config.seed) if config.pair_gap else None
    count, height, width, channels = columns["image"].shape
    shape = (channels, height, width)
    features = module.Features(**stage.entry.features)
    source = stage.inputs["data"].folder / "source"  # the complete source of the maps
    sources = [load_saliency(source)] if config.needs_saliency else []
    metrics: dict[str, Any] = {"frames": count}
    method: EncoderTraining | None = None
    if config.learns:
        method = module.Pretraining(config, shape)
        clip_norm = config.gradient_norm
        metrics |= train(stage, "pretrain", method, columns, clip_norm=clip_norm, pairs=pairs)
        encoder = method.encoder(features, *sources)
    else:
        encoder = module.Encoder(config, features, shape, *sources)
    own = (p for name, p in encoder.named_parameters() if not name.startswith("saliency."))
    metrics["parameters"] = sum(p.numel() for p in own)  # without the source of saliency
    keep(stage, method, encoder, columns, pairs)
    return metrics


if __name__ == "__main__":
    main("pretrain", "encoders", run, group=lambda entry: bool(entry.config.learns))
