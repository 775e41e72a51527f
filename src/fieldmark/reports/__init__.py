"""HTML reports: each is one file that contains its style, plots and photos.

`classifier_page` is the report of one classifier, `check_page` that of a check; that of a study is in
`fieldmark.experiments.study_page`. To add a page, add a template to `templates/` and a module.
"""

from __future__ import annotations

from fieldmark.reports.check_page import check_page
from fieldmark.reports.classifier_page import classifier_page

__all__ = ["check_page", "classifier_page"]
