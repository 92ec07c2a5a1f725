"""Where frames come from: `source:` names a file that exports `Config`, `streams`, `ACTION_LOG` and
`FRAME_INFO`. ACTION_LOG is the name of the file with the learner's actions that it repeats; None if
it needs no learner. FRAME_INFO has the names of what is stored with each frame; None if that is the
environment's own.
"""
