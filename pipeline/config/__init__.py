"""What may stand in params.yaml."""
