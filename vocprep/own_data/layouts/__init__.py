"""Layouts of pictures and masks: a function per layout, from a listed tree to what it holds.

Belongs here: what names of folders and files mean. No mask is decoded.
"""
