"""Where clicks come from: `annotator:` names a file that exports `Config`, `annotate` and
`check`, which raises FoveaError for an environment that it cannot annotate, or for frames that lack
what it reads. SPREAD is the standard deviation, along x and y on the canvas, of a click's Gaussian
in the map; STORED says that the clicks are stored with the frames already.
"""
