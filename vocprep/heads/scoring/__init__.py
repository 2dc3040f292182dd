"""Scoring: what heads are worth on a split, beside oracles and a constant prediction.

Belongs here: one pass over a split (``split_pass``, ``counters``), the scores computed from its
counts (``metrics``, ``oracles``, ``whole_image``), their results (``scores``) and the verb
``evaluate``.
"""
