"""Where a version comes to stand: staging, what exists already, publishing.

``publish`` and ``staging`` for folders, ``store_publish`` and ``store_staging`` for object stores,
``store_output`` chooses.
"""
