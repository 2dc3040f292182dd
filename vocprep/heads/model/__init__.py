"""The network: configuration, heads, encoders, losses.

Nothing here reads files or depends on runs. A mask head or an encoder is added here (``encoders``,
``tfdet``), with its name in ``config``; the options of training have the same field.
"""
