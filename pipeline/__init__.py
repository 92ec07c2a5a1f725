"""The composition root: one file a stage, and the parts that they share."""

import sys

if sys.argv[0] == "-m":  # `python -m pipeline.train`; the imports after this take seconds
    from pipeline.runtime import process

    process.begin()
