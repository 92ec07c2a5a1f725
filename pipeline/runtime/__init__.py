"""How a stage runs: workspace, artifact, processes, progress."""
