"""The authors' own code against ours: `python -m bench.released PATH`.

PATH is the folder of the SPIRL release with `spirl/` in it. Its layers get our weights, so both
make the same error maps, which are compared. Then its map of one frame and its training step are
timed against ours, interleaved, on one thread; our step multiplies in bfloat16 where training does.
Nothing of the release is copied here. Its agents need packages of old versions: empty modules
replace imports that are never called here, and a keyword that timm has renamed is passed on under
its new name.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from timm.models import vision_transformer
from torch import Tensor, nn

from bench import results
from bench.error_map import random_frames, uncached_map
from bench.mae import SHAPE, inputs, our_step
from pretrain.encoders.mae import Config, network
from pretrain.modules.vit import MaskedViT

ENV = "atari/Frostbite"
FRAMES, STEPS = 8, 5  # frames whose maps are timed; rounds of training steps
EMPTY_MODULES = (  # module, and the name that is imported from it
    ("gym", "Env"),
    ("matplotlib.pyplot", "plot"),
    ("stable_baselines3.common.type_aliases", "Schedule"),
    ("stable_baselines3.common.distributions", "CategoricalDistribution"),
    ("sklearn.preprocessing", "MinMaxScaler"),
)


def main() -> None:
    """The command line."""
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "spirl" / "vit_policy.py").is_file():
        sys.exit("usage: python -m bench.released PATH, the release's folder with spirl/ in it")
    torch.set_num_threads(1)
    _make_importable(Path(sys.argv[1]))
    figures = _maps() | _steps()
    print(json.dumps(figures, indent=1))
    results.write(results.PEERS, {"SPIRL release": figures})


def _make_importable(path: Path) -> None:
    for name, word in EMPTY_MODULES:
        parts = name.split(".")
        for depth in range(len(parts)):
            package = ".".join(parts[: depth + 1])
            sys.modules.setdefault(package, ModuleType(package))
        setattr(sys.modules[name], word, object)
    np.float = float  # type: ignore[attr-defined]  # NumPy had it until 1.24
    block: Any = vision_transformer.Block

    def renamed(*sizes: int, drop: float = 0.0, **options: Any) -> nn.Module:
        layer: nn.Module = block(*sizes, proj_drop=drop, **options)
        return layer

    vision_transformer.Block = renamed  # type: ignore[assignment,misc]  # a function for a class
    sys.path.insert(0, str(path))


@torch.no_grad()
def _maps() -> dict[str, object]:
    """Milliseconds a frame, and the largest difference between the two maps."""
    model = network(Config(), SHAPE)
    model.initialise(0)
    released = _released_map(model)
    ours = uncached_map(model)
    frames = torch.split(random_frames(ENV, FRAMES + 1), 1)
    released(frames[0])  # the warm-up
    rounds, differences = [], []
    for frame in frames[1:]:
        theirs, their_ms = _timed(partial(released, frame))
        own, own_ms = _timed(partial(ours, frame))
        rounds.append((own_ms, their_ms))
        differences.append(float((theirs - own).abs().max()))
    return {"map_difference": max(differences), **_summary("map", rounds)}


def _released_map(model: MaskedViT) -> Callable[[Tensor], Tensor]:
    """The release's error map (1, 144) of a frame (1, 3, 96, 96) uint8, on our weights."""
    theirs = importlib.import_module("spirl.vit_policy").VisualAttention(
        img_size=96, patch_size=8, in_chans=3, embed_dim=64, depth=3, num_heads=4, feature="x",
        mask_ratio=0.75, add_pos_type="addSS", decoder_embed_dim=128, decoder_depth=3,
        decoder_num_heads=8, kp="rec",
    )  # fmt: skip
    missing, surplus = theirs.load_state_dict(_renamed(model), strict=False)
    assert set(missing) == {"pos_embed", "decoder_pos_embed"} and not surplus, (missing, surplus)
    theirs.eval()

    def error_map(frame: Tensor) -> Tensor:
        image = frame.float() / 255
        x = theirs.patch_embed(image) + theirs.pos_embed[:, 1:]
        errors = torch.zeros(1, model.patches)
        for centres in theirs._rec_idx_group:
            latent, order = theirs.forward_encoder_idx(x, surr_mask_idx=centres)
            reconstruction = theirs.forward_decoder_idx(latent, order)
            errors[:, centres] = theirs.forward_err_idx(
                image, reconstruction, surr_mask_idx=centres
            )
        return errors

    return error_map


def _renamed(model: MaskedViT) -> dict[str, Tensor]:
    """Our weights under the release's names; its patch embedding is a convolution."""
    names = {
        "embed_patch.": "patch_embed.proj.",
        "cls": "cls_token",
        "embed_latent.": "decoder_embed.",
        "predict.": "decoder_pred.",
    }
    renamed = {}
    for name, weight in model.state_dict().items():
        old = next((old for old in names if name.startswith(old)), "")
        renamed[names.get(old, "") + name.removeprefix(old)] = weight
    flat = renamed["patch_embed.proj.weight"]  # (D, row, column, channel)
    renamed["patch_embed.proj.weight"] = flat.view(-1, model.patch, model.patch, 3).movedim(3, 1)
    return renamed


def _steps() -> dict[str, object]:
    """Milliseconds a training step of 64 frames: forward, backward, AdamW."""
    theirs = importlib.import_module("spirl.models_mae").MaskedAutoencoderViT(
        img_size=96, patch_size=8, embed_dim=64, depth=3, num_heads=4, decoder_embed_dim=128,
        decoder_depth=3, decoder_num_heads=8, norm_pix_loss=True,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=2.5e-4, betas=(0.9, 0.95))
    frames = inputs(patch=8)[0].permute(0, 3, 1, 2)

    def released() -> Tensor:
        loss: Tensor = theirs([frames.float() / 255, None, None], loss_all=True)[0]
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.detach()

    ours = our_step(8)
    released()  # the warm-up
    ours()
    return _summary("step", [(_timed(ours)[1], _timed(released)[1]) for _ in range(STEPS)])


def _timed(way: Callable[[], Tensor]) -> tuple[Tensor, float]:
    start = time.thread_time()
    result = way()
    return result, 1000 * (time.thread_time() - start)


def _summary(name: str, rounds: list[tuple[float, float]]) -> dict[str, object]:
    return {
        f"{name}_ours_ms": statistics.median(own for own, _ in rounds),
        f"{name}_released_ms": statistics.median(other for _, other in rounds),
        f"{name}_ratio": statistics.median(other / own for own, other in rounds),
    }


if __name__ == "__main__":
    main()
