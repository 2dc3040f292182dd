"""``make fuzz``: damaged files of every kind that the program reads (docs/fuzzing.md).

``world`` makes sound files, ``damage`` changes them, ``kinds`` is the table of what is changed and
read, ``inputs`` draws from it, ``verbs`` read what was changed, ``judge`` decides, ``worker`` and
``guard`` are the processes.
"""
