"""Places: folders of this machine and of object stores, and the cache of what is read from a store.

``places`` turns what a user writes into a place, ``store`` is an object or a folder of a store;
``client`` is the one module that uses obstore, ``forked`` makes requests in forked processes,
``problems`` puts what goes wrong into words. ``cache`` keeps whole files by their digest,
``reading`` opens a file of either kind of place.
"""
