"""Encoders: features, artifacts, and damaged artifacts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from datasets.errors import FoveaError
from pretrain.encoder import Encoder
from pretrain.encoders import mae, multimae, pixels
from pretrain.frozen import export, load_encoder, save_encoder
from pretrain.saliency import motion
from pretrain.spirl import select
from pretrain.spirl.error_map import error_map

ROOT = Path(__file__).parents[2]
SHAPE = (3, 48, 48)
SMALL = mae.Config(patch=8, dim=16, depth=2, heads=2, decoder_dim=16, decoder_heads=2)


def build(features: mae.Features | None = None, config: mae.Config = SMALL) -> mae.Encoder:
    return mae.Pretraining(config, SHAPE).encoder(features)


def frames(count: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=generator)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_encoder(build(), tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.mark.parametrize(
    ("features", "tokens"),
    [
        (mae.Features(), 12),
        (mae.Features(max_ratio=0.1), 3),
        (mae.Features(select="fixed"), 12),
        (mae.Features(select="fixed", k=7), 7),
        (mae.Features(select="all"), 36),
    ],
)
def test_tokens_are_the_selection_encoded_together(features: mae.Features, tokens: int) -> None:
    encoder = build(features)
    image = frames()
    obs = encoder(image)
    x, mask, pos = obs["x"], obs["mask"], obs["pos"]
    assert encoder.max_tokens == tokens and encoder.dim == 16
    assert x.shape == (3, tokens, 16) and x.dtype == torch.float32 and not x.requires_grad
    assert mask.shape == pos.shape == (3, tokens)
    assert mask.dtype == torch.bool and pos.dtype == torch.int64
    model = encoder.model
    for b in range(3):
        frame = image[b : b + 1]
        index, selected = {
            "dynamic": lambda e: select.dynamic(e, 1.0, tokens),
            "fixed": lambda e: select.fixed(e, tokens),
            "all": lambda e: select.every(1, 36, e.device),
        }[features.select](error_map(model, frame))
        chosen = index[selected]
        assert pos[b][mask[b]].tolist() == chosen.tolist()
        patches = model.to_patches(frame)[:, chosen]
        alone = model.encode(model.embed(patches, chosen[None]))[0, 1:] + model.positions[chosen]
        torch.testing.assert_close(x[b][mask[b]], alone, atol=1e-5, rtol=1e-5)
        assert not x[b][~mask[b]].any() and not pos[b][~mask[b]].any()


def test_a_frames_tokens_do_not_depend_on_its_batch() -> None:
    encoder, image = build(), frames(4)
    together = encoder(image)
    for b in range(4):
        for key, value in encoder(image[b : b + 1]).items():
            assert torch.equal(value[0], together[key][b])


def test_the_papers_budget_of_tokens() -> None:
    ratios = {0.35: 50, 0.30: 43, 0.20: 28}
    assert {r: mae.Features(max_ratio=r).tokens(144) for r in ratios} == ratios
    assert mae.Features(max_ratio=0.29).tokens(100) == 29


OTHER: Any = "other"  # than the known ones


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mae.Features(select=OTHER), "select: 'other'"),
        (lambda: mae.Features(slope=0.0), "slope: 0.0"),
        (lambda: mae.Features(slope=float("nan")), "slope: nan"),
        (lambda: mae.Features(slope=float("inf")), "slope: inf"),
        (lambda: mae.Features(max_ratio=0.0), "max_ratio: 0.0"),
        (lambda: mae.Features(max_ratio=1.1), "max_ratio: 1.1"),
        (lambda: mae.Features(k=5), "k: 5"),
        (lambda: build(mae.Features(select="fixed", k=37)), "k: 37, but a frame has 36"),
        (lambda: build(mae.Features(max_ratio=0.01)), "max_ratio: 0.01"),
        (lambda: mae.Features(cut=OTHER), "cut: 'other'"),
        (lambda: mae.Config(mask=1.0), "mask: 1.0"),
        (lambda: mae.Config(dim=30_000), "dim: 30000, must be at most 16,384"),
        (lambda: mae.Config(depth=10**7), "depth: 10000000, must be at most 256"),
        (lambda: mae.Config(dim=10), "dim: 10"),
        (lambda: mae.Config(epochs=0), "epochs: 0"),
        (lambda: mae.Config(base_lr=-1.0), "base_lr: -1.0"),
    ],
)
def test_impossible_settings_name_their_field(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def test_wrong_images_are_refused() -> None:
    for image in (frames().float(), frames()[0], frames()[:, :, :40]):
        with pytest.raises(ValueError, match="image: must be uint8"):
            build()(image)


def test_saliency_is_the_error_map_stretched() -> None:
    encoder, image = build(), frames()
    maps = encoder.saliency_map(image)
    errors = error_map(encoder.model, image).view(3, 6, 6)
    assert maps.shape == (3, 1, 48, 48) and maps.dtype == torch.float32
    for b in range(3):
        low, high = errors[b].min(), errors[b].max()
        expected = ((errors[b] - low) / (high - low)).repeat_interleave(8, 0)
        torch.testing.assert_close(maps[b, 0], expected.repeat_interleave(8, 1))


@pytest.mark.parametrize("features", [mae.Features(), mae.Features(select="fixed", k=2)])
def test_a_map_of_nan_makes_the_tokens_nan(
    features: mae.Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = build(features)
    errors = torch.ones(2, encoder.model.patches)
    errors[1, 3] = torch.nan
    monkeypatch.setattr(encoder, "errors", lambda image: errors[: len(image)])
    x = encoder(frames(2))["x"]
    assert x[0].isfinite().all() and x[1].isnan().all()


@pytest.mark.parametrize("features", [mae.Features(select="all"), mae.Features(max_ratio=0.1)])
def test_salient_ignores_limit_and_select(features: mae.Features) -> None:
    encoder, image = build(features), frames(1)
    error = error_map(encoder.model, image)[0]
    assert encoder.salient(image) == (error > error.mean()).nonzero()[:, 0].tolist()


def test_panels_are_images_and_reproducible() -> None:
    encoder, image = build(), frames(1)
    first, second = encoder.panels(image), encoder.panels(image)
    assert len(first) == 14
    for caption, picture in first.items():
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
        assert np.array_equal(picture, second[caption]), caption
    assert np.array_equal(first["frame"], image[0].permute(1, 2, 0).numpy())


def test_panels_have_the_content_of_their_captions() -> None:
    """The mask token alone has no position; no frame is visible in a reconstruction from no
    patches; patches that are not selected are dimmed, and no others.
    """

    def tiles(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        side = len(picture) // 6
        return picture.reshape(6, side, 6, side, 3).swapaxes(1, 2)

    encoder, image = build(), frames(2)
    one, other = (encoder.panels(frame[None]) for frame in image)
    alike = {name for name in one if name in other and np.array_equal(one[name], other[name])}
    assert alike == {f"{of} (Fig. 2)" for of in ("mask and position", "position only", "mask only")}
    uniform = {name for name in alike if (tiles(one[name]) == tiles(one[name])[0, 0]).all()}
    assert uniform == {"mask only (Fig. 2)"}
    salient = set(encoder.salient(image[:1]))
    for count, caption in ((len(salient), "dynamic K"), (4, "fixed 10 %"), (18, "fixed 50 %")):
        centres = tiles(one[f"{caption}: {count} (Fig. 3)"])[:, :, 16, 16]
        bright = np.flatnonzero((centres == tiles(one["frame"])[:, :, 4, 4]).all(2))
        assert len(bright) == count and (caption != "dynamic K" or set(bright.tolist()) == salient)


def test_saved_and_loaded_gives_the_same(saved: Path) -> None:
    header = json.loads((saved / "config.json").read_text())
    assert set(header) == {"format", "model", "image_shape", "config", "features"}
    assert header["format"] == "fovea-encoder/1" and header["model"] == "mae"
    assert header["config"]["patch"] == 8 and header["features"]["slope"] == 1.0
    own, loaded = build()(frames()), load_encoder(saved)(frames())
    assert all(torch.equal(own[key], loaded[key]) for key in own)


def test_features_are_overridden_key_by_key(saved: Path) -> None:
    assert load_encoder(saved, features={"max_ratio": 0.5}).max_tokens == 18
    assert load_encoder(saved, features={"select": "all"}).max_tokens == 36
    for wrong in (
        {"slope": -1.0},
        {"sloap": 1.0},
        {"slope": "steep"},
        {"select": "fixed", "k": 40},
    ):
        with pytest.raises(FoveaError, match="encoder"):
            load_encoder(saved, features=wrong)


def test_saving_twice_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    again = tmp_path / "deeper" / "again"
    save_encoder(build(), again)
    for name in ("model.safetensors", "config.json"):
        assert (saved / name).read_bytes() == (again / name).read_bytes()


def test_pixels_are_the_frames(tmp_path: Path) -> None:
    encoder = pixels.Encoder(pixels.Config(), pixels.Features(), SHAPE)
    save_encoder(encoder, tmp_path)
    loaded, image = load_encoder(tmp_path), frames()
    obs = loaded(image)
    assert list(obs) == ["image"] and torch.equal(obs["image"], image)
    assert obs["image"].data_ptr() != image.data_ptr()
    assert loaded.image_shape == SHAPE and loaded.max_tokens == loaded.dim == 0


def edit(folder: Path, **changes: Any) -> None:
    header = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(header | changes))


def truncate(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])


def rewrite(folder: Path, name: str, tensor: Tensor | None) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop(name)
    if tensor is not None:
        weights[name] = tensor
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: truncate(f, "model.safetensors"), "model.safetensors: not readable"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors: not readable"),
        (lambda f: rewrite(f, "model.cls", None), "model.cls is missing"),
        (lambda f: rewrite(f, "model.cls", torch.ones(1, 1, 8)), "model.cls is torch.float32"),
        (lambda f: rewrite(f, "model.cls", torch.ones(1, 1, 16).half()), "torch.float16"),
        (lambda f: rewrite(f, "model.cls", torch.full((1, 1, 16), np.nan)), "model.cls has NaN"),
        (lambda f: edit(f, config={"patch": 16}), "safetensors: model"),
        (lambda f: truncate(f, "config.json"), "config.json: not readable as JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json: must hold a JSON object"),
        (lambda f: edit(f, format="fovea-saliency/1"), "config.json: format"),
        (lambda f: edit(f, model="../../evil"), "config.json: model"),
        (lambda f: edit(f, model=["mae"]), "config.json: model"),
        (lambda f: edit(f, config={"patch": "8"}), "config.json"),
        (lambda f: edit(f, config=None), "config.json: Config must be a mapping"),
        (lambda f: edit(f, features={"what": 1}), "config.json"),
        (lambda f: edit(f, image_shape=[3, 48]), "config.json: image_shape"),
        (lambda f: edit(f, image_shape=[3, 48, 10**9]), "config.json: image_shape"),
        (lambda f: edit(f, image_shape=[3, 50, 48]), "patch: 8 does not divide"),
        (lambda f: edit(f, config={"dim": 10**12, "heads": 1}), "encoder"),
        (lambda f: edit(f, config={"dim": 16_384}), "describes more than model.safetensors holds"),
    ],
)
def test_damaged_and_foreign_artifacts_name_the_file(
    saved: Path, damage: Any, message: str
) -> None:
    damage(saved)
    with pytest.raises(FoveaError, match=message):
        load_encoder(saved)


def test_missing_files_are_named(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load_encoder(saved)
    with pytest.raises(FileNotFoundError, match=r"nowhere.config\.json"):
        load_encoder(saved.with_name("nowhere"))


READ_ALONE = """
import sys, torch
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    encode = torch.export.load(f"{folder}/encoder.pt2").module()
    image, expected = torch.load(f"{folder}/example.pt", weights_only=True)
    for count in (1, 2, len(image)):
        got = encode(image[:count])
        assert set(got) == set(expected), got.keys()
        for key, value in got.items():
            want = expected[key][:count]
            assert value.dtype == want.dtype and value.shape == want.shape, key
            assert (value.double() - want.double()).abs().max() <= 1e-5, key
assert "pretrain" not in sys.modules
"""


def foreign_to_torch() -> list[str]:
    """Import names of all installed packages that torch does not need."""

    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    needed, todo = {"torch"}, ["torch"]
    while todo:
        with contextlib.suppress(metadata.PackageNotFoundError):  # a part for other platforms
            for line in metadata.requires(todo.pop()) or []:
                name = plain(re.split(r"[^\w.-]", line)[0])
                if "extra ==" not in line and name not in needed:
                    needed.add(name)
                    todo.append(name)
    packages = metadata.packages_distributions()
    return sorted(name for name, owners in packages.items() if not needed & {*map(plain, owners)})


@pytest.mark.slow
def test_exported_programs_run_with_only_torch(tmp_path: Path) -> None:
    image = frames(5)
    encoders: list[Encoder] = [pixels.Encoder(pixels.Config(), pixels.Features(), SHAPE)]
    chosen: list[dict[str, Any]] = [{}, {"select": "fixed", "k": 5}, {"select": "all"}]
    for features in chosen:
        encoders.append(build(mae.Features(**features)))
    small = multimae.Config(dim=16, depth=1, heads=2, decoder_dim=16, decoder_heads=2)
    source = motion.fit(motion.Config(), frames(7, seed=1))
    encoders.append(multimae.Pretraining(small, SHAPE).encoder(None, source))
    folders = [tmp_path / str(number) for number in range(len(encoders))]
    for encoder, folder in zip(encoders, folders, strict=True):
        folder.mkdir()
        export(encoder, folder / "encoder.pt2")
        torch.save((image, encoder(image)), folder / "example.pt")
    foreign = foreign_to_torch()
    assert {"timm", "lightning", "safetensors"} <= set(foreign) and "torch" not in foreign
    refuse = f"import sys; sys.modules.update(dict.fromkeys({foreign}))\n"
    command = [sys.executable, "-I", "-c", refuse + READ_ALONE, *map(str, folders)]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.slow
def test_the_same_bytes_from_another_checkout(tmp_path: Path) -> None:
    """The artifact's three files, written by a copy of the code in another folder."""
    script = """
import sys, pathlib, torch
from pretrain.encoder import Encoder
from pretrain.frozen import export, save_encoder
from pretrain.encoders import mae
import pretrain
assert pretrain.__path__[0].startswith(sys.argv[2]), pretrain.__path__
torch.set_num_threads(1)
encoder = mae.Pretraining(mae.Config(patch=16), (3, 96, 96)).encoder()
save_encoder(encoder, pathlib.Path(sys.argv[1]))
export(encoder, pathlib.Path(sys.argv[1]) / "encoder.pt2")
"""
    clone = tmp_path / "another clone"
    for package in ("datasets", "pretrain"):
        shutil.copytree(ROOT / package, clone / package)
    for checkout, out in ((ROOT, tmp_path / "a"), (clone, tmp_path / "b")):
        environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONHASHSEED": "random"}
        command = [sys.executable, "-c", script, str(out), str(checkout)]
        subprocess.run(command, env=environment, cwd=tmp_path, check=True)
    for name in ("model.safetensors", "config.json", "encoder.pt2"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    for trace in (str(ROOT), "another clone", "site-packages", "pretrain"):
        assert trace.encode() not in (tmp_path / "a" / "encoder.pt2").read_bytes()
