"""Shards made on the nodes of a Ray cluster (``--engine ray``): one plain task per shard.

Ray runs in a process of its own (``process``), which ``cluster`` starts and ends: what Ray prints,
its signal handlers, and the exit with which it ends a process that has lost its cluster do not
reach the program. The two exchange ``messages``: orders one way, nodes and built shards the other.
When either process ends, so does the other, and the cluster cancels the tasks.
"""
