"""The picture of the encoder's attention shows the numbers of its file."""

from __future__ import annotations

import io

import matplotlib.image
import numpy as np
import pytest

from fopru_graph.pictures.attention import draw_concentration

LAYERS = 6


def picture(source="a.png", grid=(3, 5), shift=0.0, windows=()):
    def only_whole(layer, value):
        return None if layer in windows else value

    curves = [np.linspace(0, 1, 21) ** (1 / (1 + layer + shift)) for layer in range(LAYERS)]
    return {
        "source": source,
        "grid": list(grid),
        "curves": [only_whole(layer, curve.tolist()) for layer, curve in enumerate(curves)],
        "tokens_for_80": [only_whole(layer, 0.8 - 0.1 * layer - shift / 10) for layer in range(LAYERS)],
        "maps": {
            str(layer): (np.arange(grid[0] * grid[1]).reshape(grid) + layer).tolist()
            for layer in (0, 3, 4, 5)
            if layer not in windows
        },
    }


def data(*pictures):
    return {"model": "$x^{$", "layers": LAYERS, "read_layer": 4, "pictures": list(pictures)}


def parts(figure):
    """Axes by what they show: the curves, the needed shares, and the maps by row."""
    left, right = figure.subfigs
    return *left.axes, right.axes


def lines(axes):
    return {line.get_label(): np.asarray(line.get_ydata(), dtype=float) for line in axes.lines}


def test_curves_and_needed_shares_are_means_over_the_pictures():
    given = data(picture(), picture(shift=1.0), picture(shift=0.5))
    curves, needed, _ = parts(draw_concentration(given))
    drawn = lines(curves)
    assert {"even", "layer 0", "layer 3", "layer 4 (read)", "layer 5"} <= set(drawn)
    for layer, name in ((0, "layer 0"), (4, "layer 4 (read)")):
        assert drawn[name] == pytest.approx(np.mean([picture["curves"][layer] for picture in given["pictures"]], 0))
    assert any(len(y) == LAYERS and y == pytest.approx(0.75 - 0.1 * np.arange(LAYERS)) for y in lines(needed).values())
    band = needed.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(0.2) and band.max() == pytest.approx(0.8)
    styles = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in curves.lines}
    assert len({colour for colour, _, _ in styles}) >= 5 and len({marker for _, _, marker in styles}) >= 5


def test_maps_are_those_of_the_first_pictures_with_their_shares():
    given = data(*(picture(f"{n}.png", shift=n) for n in range(5)))
    _, _, maps = parts(draw_concentration(given))
    assert len(maps) == 3 * 4
    assert np.array_equal(maps[6].images[0].get_array(), given["pictures"][1]["maps"]["4"])
    assert maps[6].get_title() == "layer 4 (read)\n80 % in 30 %"
    assert [axes.get_ylabel() for axes in maps[::4]] == ["0.png", "1.png", "2.png"]


def test_layers_that_see_windows_only_are_left_out():
    given = data(picture(windows=(1, 3)), picture(windows=(1,)))
    curves, needed, maps = parts(draw_concentration(given))
    assert lines(curves)["layer 3"] == pytest.approx(given["pictures"][1]["curves"][3])
    ((x, y),) = [(line.get_xdata(), line.get_ydata()) for line in needed.lines if len(line.get_xdata()) > 2]
    assert list(x) == [0, 2, 3, 4, 5] and np.isfinite(y).all()
    assert not maps[1].images and "windows" in maps[1].get_title()
    assert maps[5].images


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_odd_data_can_be_drawn(kind):
    odd = picture("long" * 30 + "<b>_ $x^{$", grid=(1, 1))  # read as mathematics it could not be drawn
    odd["maps"] = {"4": [[0.0]]}
    stream = io.BytesIO()
    draw_concentration(data(odd)).savefig(stream, format=kind)
    if kind == "png":
        stream.seek(0)
        assert matplotlib.image.imread(stream).std() > 0


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="no picture"):
        draw_concentration(data())
