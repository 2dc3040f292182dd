"""Making dataset versions: plan, prepare, embed, finish shards, publish.

Belongs here: everything between a data dir and a finished dataset version. Reading one is
``vocprep.shards``, checking one ``vocprep.checks``.
"""
