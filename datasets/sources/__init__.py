"""Where frames come from: `source:` names a file that exports `Config` and `streams`."""
