"""Where clicks come from: `annotator:` names a file that exports `Config`, `annotate` and
`again`: the clicks of a second annotator on the same frames, None where none is simulated.
"""
