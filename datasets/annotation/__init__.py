"""Where clicks come from: `annotator:` names a file that exports `Config`, `annotate` and
`check`, which raises FoveaError for an environment that it cannot annotate, or for frames that lack
what it reads.
"""
