"""Making dataset versions: plan, read, embed, finish shards, publish.

Belongs here: everything between a data dir and a finished dataset version. Where it comes to stand
is ``output``, many machines at once are ``ray``. Reading a version is ``vocprep.shards``, checking
one ``vocprep.checks``. The room is named ``building`` so that ``vocprep.build`` can be the
function.
"""
