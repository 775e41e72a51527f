"""Heads: what is learned on frozen features. One file for each kind.

A new kind of head is a file beside these and a line in `HEADS`.
"""
