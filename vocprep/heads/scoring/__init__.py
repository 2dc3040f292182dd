"""Scoring: what heads are worth on a split, beside oracles and a constant prediction.

Belongs here: one pass over a split (``split_pass``), the scores computed from its counts, the
results (``scores``, ``whole_image``, ``comparison``) and the verb ``evaluate``. What is counted,
and how, is in ``measures``.
"""
