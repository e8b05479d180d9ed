"""Job, engine and Editor give the same pixels, whatever the company, the threads and the kernels."""

import pytest

from tests.rounding import SETTINGS, run_under


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["as it is", *SETTINGS])
def test_job_engine_and_editor_give_the_same_pixels(setting):
    assert run_under(setting, "tests.company", "400").split("\n") == ["400", ""]
