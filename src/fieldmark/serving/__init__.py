"""HTTP API and web page for one classifier (`fieldmark serve`).

Photos are held in memory while they are processed and are never stored.
"""
