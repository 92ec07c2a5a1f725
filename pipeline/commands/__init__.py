"""Commands beside the stages: `python -m pipeline.commands.<name>`."""
