"""Where frames come from: `source:` names a file that exports `Config`, `streams` and `ACTION_LOG`,
the name of the file with the learner's actions that it repeats; None if it needs no learner.
"""
