"""Downloading sources: plan, mirrors, resumed transfers, verification, safe unpacking.

Belongs here: everything between a source manifest and verified, unpacked files in the data dir. The
way of one file: ``download`` (the public function), ``plan`` (what is missing), ``mirrors`` (which
mirror next), ``http`` (one request), ``partial`` (the bytes so far), ``archive`` and ``members``
(unpacking), ``outcomes`` (what is returned).
"""
