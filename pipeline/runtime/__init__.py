"""The execution of a stage: workspace, artifact, processes, progress."""
