"""Synthetic: generated images and label maps in the layout of VOC 2010 and Pascal Context.

Belongs here: what makes data without a download, for the demo, the tests and first trials.
"""
