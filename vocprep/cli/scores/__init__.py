"""How scores are printed: of one run with its oracles, of several in one table, of groups.

Belongs here: what turns results of ``evaluate`` into tables of text, all in percent.
"""
