"""A frozen encoder of Fovea, by itself: this file needs torch, and nothing of Fovea's repository.

It is a copy in the folder of an artifact, whose encoder it loads. `images.json` beside it states
how the images must be made. With that folder in `sys.path`:

    import fovea_encoder
    encoder = fovea_encoder.load()                     # uint8 (B, C, H, W) -> dict of tensors
    env = fovea_encoder.Observation(env)               # Gymnasium
    PPO("CnnPolicy", env, policy_kwargs=fovea_encoder.policy_kwargs())        # Stable-Baselines3
    env = TransformedEnv(env, fovea_encoder.Transform(in_keys=["pixels"]))    # TorchRL

The last three give the flat form of the features, one vector of float32 a frame:

    tokens, N > 1   x (N, D) row by row, then mask (N) as 0 or 1: N·(D + 1) numbers. Rows that are
                    padding are zero. `pos` is left out, since x has the positions' embeddings in it
    tokens, N = 1   x: D numbers
    masked          image / 255 (C, H, W), then attention (h, w)
    pixels          image / 255 (C, H, W)

Images are uint8, (C, H, W) or (H, W, C); gray ones may be (H, W). Several frames that are stacked
along the channels give as many vectors, side by side. Where frames are replayed, the wrapper and
the transform encode a frame once; Stable-Baselines3's extractor encodes it in every update.

Each file is compared with the digest in `manifest.json` before it is used.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

HERE = Path(__file__).parent  # the artifact, if this is its copy
FORMATS = {"manifest.json": "fovea/1", "config.json": "fovea-encoder/1"}


class FrozenEncoder(nn.Module):
    """uint8 (B, C, H, W) -> the features as a dict of tensors, on the images' device.

    Its weights are no parameters: no optimizer trains them, and no checkpoint holds them.

    Attributes:
        shape: (C, H, W) of a frame.
        width: the length of a frame's flat form.
        images: `images.json`, how the images are made; empty for artifacts of before it.
    """

    def __init__(self, folder: Path, program: Any, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.folder, self.shape = folder, shape
        self.images: dict[str, Any] = {}
        self._program = program
        self._modules_on: dict[str, Any] = {}
        self.width = flat(self(torch.zeros(1, *shape, dtype=torch.uint8))).shape[1]

    @torch.no_grad()
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """The features of each frame."""
        if image.dtype != torch.uint8 or tuple(image.shape[1:]) != self.shape:
            raise ValueError(f"{self._expected()}, not {image.dtype} {tuple(image.shape)}")
        features: dict[str, Tensor] = self._module_on(image.device)(image)
        return features

    def flat(self, image: Tensor) -> Tensor:
        """(..., C, H, W) or (..., H, W, C) of k·C channels -> (..., k·width) float32.

        Raises ValueError for images of another type or size.
        """
        image = self._channels_first(image)
        frames = image.reshape(-1, *self.shape)
        return flat(self(frames)).reshape(*image.shape[:-3], self.flat_width(image.shape))

    def flat_width(self, shape: Sequence[int]) -> int:
        """The length of the flat form of images of a shape. Raises ValueError if it is another."""
        channels, *size = self.shape
        if len(shape) == 2 and channels == 1:
            shape = (1, *shape)
        if len(shape) >= 3:
            if list(shape[-2:]) == size and shape[-3] and shape[-3] % channels == 0:
                return shape[-3] // channels * self.width
            if list(shape[-3:-1]) == size and shape[-1] and shape[-1] % channels == 0:
                return shape[-1] // channels * self.width
        raise ValueError(f"{self._expected()}, not {tuple(shape)}")

    def _channels_first(self, image: Tensor) -> Tensor:
        self.flat_width(image.shape)
        if image.ndim == 2:
            return image[None]
        first = list(image.shape[-2:]) == list(self.shape[1:])
        return image if first else image.movedim(-1, -3)

    def _module_on(self, device: torch.device) -> Any:
        """The program as a module on a device, made once."""
        key = str(device)
        if key not in self._modules_on:
            program = self._program
            if device.type != "cpu":
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, key)
            self._modules_on[key] = program.module()
        return self._modules_on[key]

    def _expected(self) -> str:
        return (
            f"{self.folder}: needs images uint8 {self.shape}, made as images.json beside the "
            "encoder states"
        )

    def __reduce__(self) -> Any:
        return load, (str(self.folder),)


def load(folder: Path | str = HERE) -> FrozenEncoder:
    """The encoder of an artifact's folder.

    Raises FileNotFoundError for a missing file, and ValueError for one that is damaged or of
    another format. The message names it.
    """
    folder = Path(folder)
    manifest = _json(folder / "manifest.json", (folder / "manifest.json").read_bytes())
    seal = manifest.pop("sha256", None)
    if hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest() != seal:
        raise ValueError(f"{folder / 'manifest.json'}: damaged; copy the artifact again")
    _check_format(folder / "manifest.json", manifest)
    files = manifest["files"]
    config = _json(folder / "config.json", _read(folder, "config.json", files))
    _check_format(folder / "config.json", config)
    if "encoder.pt2" not in files:
        raise ValueError(f"{folder}: has no encoder.pt2; its encoder reads no images")
    data = _read(folder, "encoder.pt2", files)
    with warnings.catch_warnings():  # of torch, about its own buffers
        warnings.simplefilter("ignore")
        program = torch.export.load(io.BytesIO(data))
    channels, height, width = config["image_shape"]
    encoder = FrozenEncoder(folder, program, (channels, height, width))
    if "images.json" in files:
        encoder.images = _json(folder / "images.json", _read(folder, "images.json", files))
    return encoder


def flat(features: Mapping[str, Tensor]) -> Tensor:
    """Features of B frames -> (B, width) float32, in the form that the module describes."""
    if "x" in features:
        x, mask = features["x"], features["mask"]
        parts = [x] if x.shape[1] == 1 else [x, mask.to(x.dtype)]
    else:
        parts = [features["image"].float() / 255]
        parts += [features["attention"]] if "attention" in features else []
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def policy_kwargs(folder: Path | str = HERE) -> dict[str, Any]:
    """The `policy_kwargs` of a Stable-Baselines3 policy on the flat form."""
    return {
        "features_extractor_class": __getattr__("Extractor"),
        "features_extractor_kwargs": {"folder": str(folder)},
        "normalize_images": False,
    }


def _observation() -> Any:
    try:
        import gymnasium
    except ImportError:
        raise ImportError("fovea_encoder.Observation: `pip install gymnasium` first") from None

    class Observation(gymnasium.ObservationWrapper[Any, Any, Any]):
        """Observations are the flat form (width,) of an environment's images."""

        def __init__(self, env: Any, folder: Path | str = HERE) -> None:
            super().__init__(env)
            self.encoder = load(folder)
            space = env.observation_space
            if getattr(space, "dtype", None) != "uint8":
                raise ValueError(f"{self.encoder._expected()}, not observations {space}")
            shape = self._shape(space.shape)
            self.observation_space = gymnasium.spaces.Box(-float("inf"), float("inf"), shape)

        def observation(self, observation: Any) -> Any:
            """The flat form of one image; of several along a first axis, side by side."""
            return self.encoder.flat(torch.as_tensor(observation)).reshape(-1).numpy()

        def _shape(self, image: tuple[int, ...]) -> tuple[int]:
            width = self.encoder.flat_width(image)
            for count in image[:-3]:
                width *= count
            return (width,)

    return Observation


def _extractor() -> Any:
    try:
        from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    except ImportError:
        message = "fovea_encoder.Extractor: `pip install stable-baselines3` first"
        raise ImportError(message) from None

    class Extractor(BaseFeaturesExtractor):  # type: ignore[misc]  # Any: it may be missing
        """Images -> the flat form; the policy needs `normalize_images=False`."""

        def __init__(self, observation_space: Any, folder: Path | str = HERE) -> None:
            encoder = load(folder)
            super().__init__(observation_space, encoder.flat_width(observation_space.shape))
            self.encoder = encoder

        def forward(self, observations: Tensor) -> Tensor:
            """(B, k·C, H, W), as float32 from 0 to 255 -> (B, k·width)."""
            image = observations.to(torch.uint8)
            if (image != observations).any():
                raise ValueError(
                    "fovea_encoder.Extractor: set normalize_images=False in the policy"
                )
            return self.encoder.flat(image)

    return Extractor


def _transform() -> Any:
    try:
        from torchrl.data import Unbounded
        from torchrl.envs.transforms import Transform as Base
    except ImportError:
        raise ImportError("fovea_encoder.Transform: `pip install torchrl` first") from None

    class Transform(Base):  # type: ignore[misc]
        """The images of `in_keys` -> their flat forms under `out_keys`."""

        def __init__(
            self,
            folder: Path | str = HERE,
            in_keys: Sequence[Any] = ("pixels",),
            out_keys: Sequence[Any] = ("features",),
        ) -> None:
            super().__init__(in_keys=list(in_keys), out_keys=list(out_keys))
            self.encoder = load(folder)

        def _apply_transform(self, obs: Tensor) -> Tensor:
            return self.encoder.flat(obs)

        def _reset(self, tensordict: Any, tensordict_reset: Any) -> Any:
            return self._call(tensordict_reset)

        def transform_observation_spec(self, observation_spec: Any) -> Any:
            """The environment's, with the features beside the images."""
            for image, features in zip(self.in_keys, self.out_keys, strict=True):
                shape = observation_spec[image].shape
                width = self.encoder.flat_width(shape)
                observation_spec[features] = Unbounded(
                    shape=(*shape[:-3], width), dtype=torch.float32, device=observation_spec.device
                )
            return observation_spec

    return Transform


ADAPTERS: dict[str, Callable[[], Any]] = {
    "Observation": _observation,
    "Extractor": _extractor,
    "Transform": _transform,
}


def __getattr__(name: str) -> Any:
    """The class of an adapter, whose library is imported only now. It is found by pickle, too."""
    if name not in globals():
        if name not in ADAPTERS:
            raise AttributeError(f"fovea_encoder has no {name}; {', '.join(ADAPTERS)} are adapters")
        adapter = ADAPTERS[name]()
        adapter.__qualname__ = name
        globals()[name] = adapter
    return globals()[name]


def _read(folder: Path, name: str, files: Mapping[str, str]) -> bytes:
    """A file's bytes. Raises ValueError unless they are those that the manifest lists."""
    data = (folder / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != files.get(name):
        raise ValueError(
            f"{folder / name}: not the bytes that manifest.json lists; copy the artifact again"
        )
    return data


def _json(path: Path, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); copy the artifact again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must hold a JSON object; copy the artifact again")
    return value


def _check_format(path: Path, content: Mapping[str, Any]) -> None:
    if content.get("format") != FORMATS[path.name]:
        raise ValueError(
            f"{path}: format {content.get('format')!r}, but this file reads "
            f"{FORMATS[path.name]!r}; use the fovea_encoder.py of the artifact itself"
        )
