"""Where clicks come from: `annotator:` names a file that exports `Config`, `annotate` and
`again`, which returns a second annotator's clicks on the same frames, or None.
"""
