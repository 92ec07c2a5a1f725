"""Where clicks come from: `annotator:` names a file that exports `Config` and `annotate`."""
