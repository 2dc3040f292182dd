"""The data dir: samples of a dataset, receipts of what was downloaded, digests of source files.

Belongs here: what is below ``--data-dir`` and what vocprep records about it. Nothing is fetched.
"""
