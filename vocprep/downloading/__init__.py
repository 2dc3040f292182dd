"""Downloading sources: plan, mirrors, resumed transfers, verification, safe unpacking.

Belongs here: everything between a source manifest and verified, unpacked files in the data dir. The
way of one file: ``download`` (the public function), ``plan`` (what is missing), ``hub`` (where the
weights of a library's model are), ``mirrors`` (the transfer), ``schedule`` (which mirror next),
``http`` (one request), ``connection`` (what is read of a response, within bounds), ``faults`` (what
a mirror can do wrong), ``partial`` (the bytes so far), ``archive`` and ``members`` (unpacking),
``outcomes`` (what is returned).
"""
