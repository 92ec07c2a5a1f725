"""The composition root: one file a stage, and what they share."""

import sys

if sys.argv[0] == "-m":  # `python -m pipeline.train`, before the imports that take seconds
    from pipeline.runtime import process

    process.begin()
