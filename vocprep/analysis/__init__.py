"""Analysis: what the arrays of a finished version show, without trained heads.

Belongs here: nearest patches, principal components, duplicates, counts of classes and labels, and
the photographs that a version was made of. Pages, audits and evaluations are made of it.
"""
