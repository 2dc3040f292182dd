"""Pages about runs: what was trained, how it went, what the heads are worth, where runs differ.

Belongs here: the page (``page``) and its sections. Everything that is counted comes from
``vocprep.heads.scoring``.
"""
