"""`fieldmark check`: photos in; out come what may be wrong with them, a page to look at, and a table to
train on. Nothing is removed that was not asked for.
"""

from __future__ import annotations

from fieldmark.curation.config import DROPS, CheckConfig, Checked
from fieldmark.curation.runner import check, files_of
from fieldmark.curation.writing import lines

__all__ = ["DROPS", "CheckConfig", "Checked", "check", "files_of", "lines"]
