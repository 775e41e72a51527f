"""What a stage says when it is done."""

from __future__ import annotations

import pytest

from fieldmark.utils.logging import _rate, progress_bar


@pytest.mark.parametrize(
    ("speed", "said"), [(0.0258, "0.026"), (0.26, "0.26"), (1.96, "2"), (9.96, "10"), (1234.4, "1,234")]
)
def test_a_rate_is_never_rounded_to_nothing(speed: float, said: str) -> None:
    assert _rate(speed, "epochs") == f"{said} epochs/s"


def test_a_stage_says_what_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("training", 2, unit="epochs") as stage:
        stage.advance(2)
    assert capsys.readouterr().err.startswith("training: 2 epochs in 0.0 s, ")
