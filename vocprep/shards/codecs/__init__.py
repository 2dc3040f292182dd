"""The bytes of shards: how records become the bytes of a container, and records of them again.

``containers`` above names the codecs; nothing else imports them.
"""
