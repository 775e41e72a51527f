"""HTML pages: each is one file with its style, pictures and photos inside.

`classifier_page` shows one classifier, `check_page` possible problems of photos and labels; the page of a
study is built in `fieldmark.experiments.study_page`. To add a page: a template in `templates/`, and a
module that fills it.
"""

from __future__ import annotations

from fieldmark.reports.check_page import check_page
from fieldmark.reports.classifier_page import classifier_page

__all__ = ["check_page", "classifier_page"]
