"""Labels: label files, label spaces, label maps, targets of patches, statistics.

Belongs here: everything between a label file and the targets of its patches, and the verb
``decode``.
"""
