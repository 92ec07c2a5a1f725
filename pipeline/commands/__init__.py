"""What people type beside the stages: `python -m pipeline.commands.<name>`."""
