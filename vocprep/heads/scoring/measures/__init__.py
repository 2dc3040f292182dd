"""Measures: what is counted of predicted pixels and patches, and the scores of such counts.

Belongs here: counters that take tensors of a batch, oracles that predict with a part of the truth,
and the numbers computed of either; no run, no dataset version, no table.
"""
