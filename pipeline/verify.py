"""`python -m pipeline.verify`: evidence for someone who trusts nothing, in a folder of its own.

Parameter counts of the real modules, shard bytes of two independent builds, an encoder killed twice
beside one left in peace, and its exported program where nothing but torch can be imported. Each
line ends in ok or FAILED; the exit status is 1 if any failed. Tiny budgets: the evidence is in the
bytes, not in the scores.
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
from pipeline.artifact import ROOT, open_artifact
from pretrain.encoder import load_encoder
from pretrain.encoders import mae, pixels
from rl import agents
from rl.agents import rainbow

CODE = Path(__file__).parent.parent
PARAMS = """
{frames: {v: {env: atari/Breakout, source: random, count: 128, streams: 2}}, annotations: {},
encoders: {v: {data: frames/v, model: mae, patch: 16, epochs: 8, warmup_epochs: 1, batch_size: 16}},
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
           "filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "setuptools",
           "sympy", "typing_extensions"}  # torch and what it asks for
class Only:
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] not in allowed and name[0] != "_":
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Only)
import torch
torch.set_num_threads(1)
program = torch.export.load(sys.argv[1]).module()
torch.save(program(torch.load("images.pt", weights_only=True)), "tokens.pt")
"""

failed: list[str] = []


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
    encoder = sum(sizes.pop(name) for name in ("embed_patch", "blocks", "norm"))
    tokens = [sizes.pop("cls"), sizes.pop("mask_token")]
    parts = (encoder, sizes.total(), *tokens)
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
    environment = os.environ | {"PYTHONPATH": str(CODE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *code]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


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
    kept = torch.load(next(folder.glob(CHECKPOINT)), weights_only=True)["global_step"]
    show(f"pretraining killed, {kept} of 64 steps kept", process.poll(), -signal.SIGKILL)


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
        kill_after_a_checkpoint(war)
        kill_after_a_checkpoint(war)
        end(start(PRETRAIN, war), war)
        end(unharmed, peace)
        digests = [open_artifact("encoders/v", folder / ROOT).digest for folder in (peace, war)]
        show("encoder after two kills, whole artifact", digests[1], digests[0])
        place = war / ROOT / "encoders" / "v"
        images = torch.from_numpy(read_frames(frames[1].folder).images[::8]).permute(0, 3, 1, 2)
        torch.save(images, war / "images.pt")
        end(start(["-I", "-c", ALONE, str(place / "encoder.pt2")], war), war)
        found = torch.load(war / "tokens.pt", weights_only=True)
        expected = load_encoder(place)(images)
        apart = max(float((found[k].double() - expected[k].double()).abs().max()) for k in expected)
        show("exported tokens with only torch, difference", apart, "<= 1e-5", apart <= 1e-5)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
