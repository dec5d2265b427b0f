"""Pictures and plots are drawn whatever MPLBACKEND says."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

OVERLAY = """
import numpy as np
from fopru_graph.pictures.overlay import draw_kept, heat_map
heat_map(np.zeros((8, 8, 3), np.uint8), (2, 2), np.arange(4.0))
"""
PLOT = """
from fopru_graph.report.plots import figure_file, new_figure, plot_settings
with plot_settings():
    figure = new_figure(2, 2)
    figure.subplots().plot([1, 2])
    assert all(len(figure_file(figure, kind, "t")) > 500 for kind in ("png", "svg"))
"""
LEFT = """
import os, sys
import matplotlib
assert "matplotlib.pyplot" not in sys.modules
print(os.environ["MPLBACKEND"], matplotlib.get_backend(auto_select=False))
"""


@pytest.mark.parametrize(("code", "backend", "left"), [
    (OVERLAY, "nonsense", "None"),
    (PLOT, "inline_of_a_notebook", "None"),
    (PLOT, "module://nothing", "module://nothing"),
    (PLOT + OVERLAY, "svg", "svg"),
])  # fmt: skip
def test_a_backend_that_is_not_there_stops_no_picture_and_one_that_is_stays_chosen(code, backend, left):
    environment = os.environ | {"MPLBACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", code + LEFT], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, [backend, left]), done.stderr
