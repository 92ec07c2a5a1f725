"""Where frames come from: `source:` names a file that exports `Config`, `streams` and `LEARNED`:
the file with a learner's actions that it replays, None where it needs no learner.
"""
