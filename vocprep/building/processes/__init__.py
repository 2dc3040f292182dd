"""Shards made by several processes of this machine (``--processes N``), which share the shards out.

One process loads the libraries and is forked into the others (``starter``); each makes shards as
long as there are any (``worker``), which the process of the build hands out (``pool``). They
exchange ``messages``. When the process of the build ends, in whatever way, so do they.
"""
