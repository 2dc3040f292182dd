"""Auditing: which labels of a version are likely wrong.

Belongs here: out-of-fold predictions, the quality of labels that follows from them, label maps that
fit their image only shifted, mirrored or swapped, leakage between splits, the verb ``audit``.
"""
