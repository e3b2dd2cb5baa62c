"""What silx reads from a shard, and what its data viewer shows of it."""

import numpy as np
import pytest

from tests.viewers.conftest import CORNER_ID, MAP_SIZE_PX

pytest.importorskip("silx", reason="needs the extra 'viewers'")
pytestmark = pytest.mark.viewers

CHELSEA = "/by_name/chat/chelsea"
SOME_EVENTS = 5


@pytest.fixture
def file(shard):
    import silx.io

    with silx.io.open(str(shard.path)) as opened:
        yield opened


@pytest.mark.parametrize("start", ["/", "/saliency"])
def test_the_default_plot_is_the_stack_of_maps(file, shard, start):
    from silx.io import nxdata

    found = nxdata.get_default(file[start])
    assert found is not None and found.is_valid and not found.issues
    assert found.group.name == "/saliency"
    assert (found.signal.name, found.interpretation) == ("/saliency/maps", "image")
    np.testing.assert_array_equal(found.signal[()], shard.maps_nhw)
    assert found.axes_names == found.axes_dataset_names == ["row", "y", "x"]
    for axis, length in zip(found.axes, shard.maps_nhw.shape, strict=True):
        np.testing.assert_array_equal(axis[()], np.arange(length))


def test_pictures_under_their_names(file, shard):
    import silx.io

    groups = file["by_name"]
    found = [item[()] for group in groups.values() for item in group.values() if silx.io.is_dataset(item)]
    np.testing.assert_array_equal(found, shard.maps_nhw)
    np.testing.assert_array_equal(file["by_name/größe/astronaut"][()], shard.map_of("größe/astronaut.png"))


# What the window of `silx view` shows: the same widget, drawn without a screen.


@pytest.fixture
def viewer(monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    for name in ("PySide6.QtWidgets", "OpenGL.GL", "qtawesome"):
        # A container without the system's graphics libraries cannot load them.
        pytest.importorskip(name, reason="silx cannot draw here", exc_type=ImportError)
    from silx.gui import qt
    from silx.gui.data.DataViewerFrame import DataViewerFrame

    application = qt.QApplication.instance() or qt.QApplication([])
    frame = DataViewerFrame()
    frame.resize(900, 700)
    frame.show()
    yield frame
    frame.close()
    frame.deleteLater()
    application.processEvents()


def show(viewer, data):
    """Name of the view that silx chooses for ``data``, and the plot in it, None where it is no plot."""
    from silx.gui import qt
    from silx.gui.plot import PlotWidget

    viewer.setData(data)
    for _ in range(SOME_EVENTS):
        qt.QApplication.processEvents()
    plots = [plot for plot in viewer.findChildren(PlotWidget) if plot.isVisible()]
    return viewer.displayedView().label(), plots[0] if plots else None


def drawn_map(viewer, plot):
    """(H, W) grey values of the plot's pixels at the middle of each map pixel, as the window shows them."""
    from silx.gui import qt

    plot.getActiveImage().getColormap().setName("gray")
    for _ in range(SOME_EVENTS):
        qt.QApplication.processEvents()
    picture = plot.grab().toImage()
    middles = np.arange(MAP_SIZE_PX) + 0.5
    corner = plot.getWidgetHandle().mapTo(plot, qt.QPoint(0, 0))
    found = np.empty((MAP_SIZE_PX, MAP_SIZE_PX))
    for row, y in enumerate(middles.tolist()):
        for column, x in enumerate(middles.tolist()):
            x_px, y_px = plot.dataToPixel(x, y, check=False)
            found[row, column] = qt.qGray(picture.pixel(round(x_px + corner.x()), round(y_px + corner.y())))
    return found


def test_the_window_opens_with_the_first_map_and_its_axes(viewer, file, shard):
    view, plot = show(viewer, file)
    assert view == "Image"
    np.testing.assert_array_equal(plot.getActiveImage().getData(), shard.map_of(CORNER_ID))
    assert (plot.getXAxis().getLabel(), plot.getYAxis().getLabel()) == ("x", "y")
    assert plot.getActiveImage().getOrigin() == (0, 0) and plot.getActiveImage().getScale() == (1, 1)


def test_a_picture_under_its_name_is_an_image_with_the_maps_grey_values(viewer, file, shard):
    view, plot = show(viewer, file[CHELSEA])
    assert view == "Image"
    expected = shard.map_of("chat/chelsea.png")
    np.testing.assert_array_equal(plot.getActiveImage().getData(), expected)
    # One grey step of silx's own scaling, and matplotlib's rounding.
    difference = np.abs(drawn_map(viewer, plot) - 255.0 * expected / expected.max())
    assert np.median(difference) <= 2 and (difference > 8).mean() < 0.05


def test_the_window_shows_maps_upside_down_until_its_y_axis_is_turned(viewer, file):
    _, plot = show(viewer, file)

    def top_px() -> float:
        return plot.dataToPixel(0, 0, check=False)[1] - plot.dataToPixel(0, MAP_SIZE_PX, check=False)[1]

    assert top_px() > 0, "docs/viewers.md says that the first line is at the bottom"
    plot.getYAxisInvertedButton().setYAxisDownward()
    assert top_px() < 0


def test_the_table_is_shown_as_columns(viewer, file):
    view, plot = show(viewer, file["images"])
    assert (view, plot) == ("Raw", None)


def test_a_shard_is_opened_for_reading_only(file):
    assert file.mode == "r"
