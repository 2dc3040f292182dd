"""What ``init`` writes: the text of the manifests, the overlay sheet, and the files themselves.

Belongs here: what touches the disk or decides bytes on it.
"""
