"""The HTML pages: each is one file with its style, pictures and photos inside.

`study_page` shows a study beside the paper, `classifier_page` one classifier, `check_page` what may be
wrong with photos. All give text; it is written with `fieldmark.files.write_text`. To add a page: a
template in `templates/`, and a module beside these that fills it.
"""

from __future__ import annotations

from fieldmark.report.check_page import check_page
from fieldmark.report.classifier_page import classifier_page
from fieldmark.report.study_page import study_page

__all__ = ["check_page", "classifier_page", "study_page"]
