"""The data dir: samples of a dataset, receipts of what was downloaded, digests of source files.

Belongs here: what lies below ``--data-dir`` and what is remembered of it. Nothing is fetched here.
"""
