"""Pixels on disk: environments, frame sources, annotations and the shards they are kept in.

The package shares its name with Hugging Face's library; this one has no `load_dataset`.
"""


def __getattr__(name: str) -> object:
    """Explain an import that was meant for Hugging Face's package of the same name."""
    if name in {"load_dataset", "Dataset", "load_from_disk"}:
        raise AttributeError(
            f"`datasets.{name}` belongs to Hugging Face's package of the same name; this is "
            "Fovea's own `datasets` (you are running from Fovea's root). Run from another folder, "
            "or read frames with `datasets.shards.read_frames(folder)`."
        )
    raise AttributeError(f"module 'datasets' has no attribute {name!r}")
