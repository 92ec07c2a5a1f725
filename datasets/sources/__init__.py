"""Where frames come from: a word names a file that exports `Config` and `streams`."""
