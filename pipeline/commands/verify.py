"""`python -m pipeline.commands.verify`: evidence for someone who trusts nothing, in a folder of its
own.

Parameter counts of the real modules, shard bytes of two independent builds, an encoder killed twice
beside one left in peace, and its exported program where nothing but torch can be imported. Each
line ends in ok or FAILED; the exit status is 1 if any failed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from datasets.shards import read_frames
from pipeline.runtime.artifact import ROOT, open_artifact
from pretrain.encoder import load_encoder
from pretrain.encoders import mae, pixels
from rl import agents
from rl.agents import rainbow

CODE, failed = Path(__file__).parents[2], list[str]()
PARAMS = """
{frames: {v: {env: atari/Breakout, source: random, count: 128, streams: 2}}, annotations: {},
encoders: {v: {data: frames/v, model: mae, patch: 16, epochs: 4, warmup_epochs: 1, batch_size: 16}},
predictors: {}, saliency: {}, policies: {}}
"""
CHECKPOINT = f"{ROOT}/.work/*/last.ckpt"
COLLECT = ["-m", "pipeline.collect", "v"]
# The stage as it is, but with a checkpoint every seven steps instead of every half a minute.
PRETRAIN = ["-c", """
import functools, runpy
from pretrain import trainer
trainer.fit = functools.partial(trainer.fit, checkpoint_every=7)
runpy.run_module("pipeline.pretrain", run_name="__main__", alter_sys=True)
""", "v"]  # fmt: skip
ALONE = """
import sys
allowed = {*sys.stdlib_module_names, "torch", "torchgen", "functorch", "cuda", "nvidia", "triton",
    "filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "setuptools", "sympy",
    "typing_extensions"}  # torch and what it asks for
usual = sys.meta_path.pop()
class Only:
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in allowed or name[0] == "_":
            return usual.find_spec(name, path, target)
sys.meta_path.append(Only)
import torch
program = torch.export.load(sys.argv[1]).module()
torch.save(program(torch.load("images.pt", weights_only=True)), "tokens.pt")
"""


def show(what: str, found: object, expected: object, good: bool | None = None) -> None:
    """Print one line; it is ok if both are equal, or as `good` says."""
    good = found == expected if good is None else good
    failed.extend([] if good else [what])
    print(f"{what}: {found}, expected {expected}: {'ok' if good else 'FAILED'}", flush=True)


def counts() -> None:
    """Parameters of the modules that training uses, at the papers' settings."""
    shape, sizes = (3, 96, 96), Counter[str]()
    for name, parameter in mae.Pretraining(mae.Config(), shape).model.named_parameters():
        sizes[name.split(".")[0]] += parameter.numel()
    own = ("embed_patch", "blocks", "norm")
    encoder, cls, mask = sum(map(sizes.pop, own)), sizes.pop("cls"), sizes.pop("mask_token")
    parts = (encoder, sizes.total(), cls, mask)
    show("MAE encoder, decoder, CLS, mask token", parts, (162_432, 628_160, 64, 128))
    show("MAE, all", sum(parts), 790_784)
    salient = mae.Pretraining(mae.Config(), shape).encoder()
    raw = pixels.Encoder(pixels.Config(), pixels.Features(), shape)
    for what, eyes, actions, expected in (
        ("Rainbow on tokens, 18 actions", salient, 18, 645_093),
        ("Rainbow on tokens, 9 actions", salient, 9, 409_167),
        ("Rainbow on the CNN, 18 actions", raw, 18, 1_149_861),
    ):
        policy = agents.make("rainbow", rainbow.Config(), eyes, actions=actions).policy
        show(what, sum(p.numel() for p in policy.parameters()), expected)
        if (eyes, actions) == (salient, 18):
            aggregator = sum(p.numel() for n, p in policy.named_parameters() if n[:4] == "net.")
            show("aggregator", aggregator, 14_880)


def start(code: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """A Python process in a folder; what it prints is kept in `log`."""
    own = os.environ | {"PYTHONPATH": str(CODE), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, *code], cwd=folder, env=own, stdout=log, stderr=log
        )


def end(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for a process that must succeed."""
    if process.wait():
        sys.exit(f"{(folder / 'log').read_text()}a process that must succeed: FAILED")


def kill_after_a_checkpoint(folder: Path) -> None:
    """Start pretraining and kill it as soon as it has written one more checkpoint."""
    before = [path.stat().st_mtime_ns for path in folder.glob(CHECKPOINT)]
    process = start(PRETRAIN, folder)
    while process.poll() is None:
        if [path.stat().st_mtime_ns for path in folder.glob(CHECKPOINT)] != before:
            process.kill()
        time.sleep(0.005)
    kept = [torch.load(p, weights_only=True)["global_step"] for p in folder.glob(CHECKPOINT)]
    show(f"pretraining killed, step {kept} of 32 kept", process.poll(), -signal.SIGKILL)


def main() -> None:
    """Show all of it."""
    counts()
    with tempfile.TemporaryDirectory() as temporary:
        peace, war = (Path(temporary, name) for name in ("peace", "war"))
        for folder in (peace, war):
            folder.mkdir()
            (folder / "params.yaml").write_text(PARAMS)
        for process, folder in [(start(COLLECT, each), each) for each in (peace, war)]:
            end(process, folder)
        frames = [open_artifact("frames/v", folder / ROOT) for folder in (peace, war)]
        for name, digest in frames[0].files.items():
            if name.endswith(".tar"):
                show(f"shard {name}, built twice", frames[1].files[name], digest)
        unharmed = start(PRETRAIN, peace)
        for _ in range(2):
            kill_after_a_checkpoint(war)
        end(start(PRETRAIN, war), war)
        end(unharmed, peace)
        left, killed = (open_artifact("encoders/v", each / ROOT).digest for each in (peace, war))
        show("encoder after two kills, whole artifact", killed, left)
        place = war / ROOT / "encoders/v"
        images = torch.from_numpy(read_frames(frames[1].folder).images[::8]).permute(0, 3, 1, 2)
        torch.save(images, war / "images.pt")
        end(start(["-I", "-c", ALONE, f"{place}/encoder.pt2"], war), war)
        got, wanted = torch.load(war / "tokens.pt", weights_only=True), load_encoder(place)(images)
        apart = max(float((got[k].double() - wanted[k].double()).abs().max()) for k in wanted)
        show("exported tokens with only torch, difference", apart, "<= 1e-5", apart <= 1e-5)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
