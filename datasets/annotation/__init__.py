"""Where clicks come from: a word names a file that exports `Config` and `annotate`."""
