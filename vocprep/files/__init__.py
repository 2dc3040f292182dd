"""Files and folders, whatever they hold: reading in bounds, writing as a whole, locks, names.

Nothing here is particular to images, shards or runs.
"""
