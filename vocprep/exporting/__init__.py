"""Export: a dataset version or a run written in the files of other libraries.

``export`` is the verb; ``kinds`` the table of formats, each one module; ``output`` how the files of
an export get their names together; ``version_source`` what a version gives to its formats;
``tables`` and ``pictures`` what those of rows and those of files per picture share.
"""
