"""Check of a photo collection (`fieldmark check`): what may be wrong, a page, and a table to train on.

Each module finds one kind of problem; `runner` puts them together. Photos are removed only on request.
"""

from __future__ import annotations

from fieldmark.curation.config import DROP_REASONS, CheckConfig, CheckResult, CheckSummary
from fieldmark.curation.runner import check, files_of, lines

__all__ = ["DROP_REASONS", "CheckConfig", "CheckResult", "CheckSummary", "check", "files_of", "lines"]
