"""The exam: one bit flipped at a time in every file that a stage, the report or the page reads.

`make exam` runs a seeded sample in ten minutes and prints what became of each flip; readers.py has
one line for each reader of files, examine.py what is done to them.
"""
