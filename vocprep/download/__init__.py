"""Fetching sources: plan, mirrors, resumed transfers, verification, safe unpacking.

Belongs here: everything between a source manifest and verified files below the data dir.
"""
