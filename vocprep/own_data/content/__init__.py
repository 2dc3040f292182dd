"""What masks and pictures hold, and which ids, names and void follow from it.

Belongs here: what decodes files. Which files there are is decided before.
"""
