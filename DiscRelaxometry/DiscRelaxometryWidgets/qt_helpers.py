"""Small helpers that hide how PythonQt (Slicer) and PySide6 (the tests' host) differ."""

from contextlib import contextmanager

import slicer
from slicer.i18n import tr as _

from DiscRelaxometryLib import mrml

#: Widths in pixels beyond which the last column, and any other, of a table makes nobody scroll.
LAST_COLUMN, WIDEST_COLUMN = 90, 170


def value(widget, name):
    """Return a property: an attribute in PythonQt, a method in PySide6."""
    member = getattr(widget, name)
    return member() if callable(member) else member


def assign(widget, **properties):
    """Set properties of a ctk or qMRML widget, whose setters PythonQt does not always offer as methods."""
    for name, content in properties.items():
        widget.setProperty(name, content)


@contextmanager
def silent(widget):
    """Change a widget without telling anyone."""
    blocked = widget.blockSignals(True)
    try:
        yield
    finally:
        widget.blockSignals(blocked)


def allow(button, missing, ready):
    """Enable a button where nothing is missing; the tooltip says what it does, or what is missing."""
    button.setEnabled(not missing)
    button.setToolTip(" ".join(missing) if missing else ready)


def fill_table(widget, headers, rows, editable=(), colors=None):
    """Fill a QTableWidget with rows of texts, `editable` columns, and colors (r, g, b) before the first column."""
    import qt

    with silent(widget):
        widget.setRowCount(len(rows))
        widget.setColumnCount(len(headers))
        widget.setHorizontalHeaderLabels(headers)
        for r, row in enumerate(rows):
            for c, text in enumerate(row):
                item = qt.QTableWidgetItem(str(text))
                if c not in editable:
                    item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable)
                if c == 0 and colors:
                    item.setData(qt.Qt.DecorationRole, qt.QColor(*colors[r]))
                item.setToolTip(str(text))
                widget.setItem(r, c, item)
        widget.verticalHeader().setVisible(False)
        fit_columns(widget)
        widget.setWordWrap(False)
        widget.resizeRowsToContents()


def fit_columns(widget):
    """Make columns as wide as their texts, within limits; the last takes what is left, tooltips the rest."""
    header = widget.horizontalHeader()
    header.setStretchLastSection(False)
    widget.resizeColumnsToContents()
    count = value(widget, "columnCount")
    for column in range(count):
        widest = LAST_COLUMN if column == count - 1 else WIDEST_COLUMN
        header.resizeSection(column, min(header.sectionSize(column), widest))
    header.setStretchLastSection(True)


def fill_from_node(widget, node):
    """Fill a QTableWidget from a table node, or empty it where there is none."""
    if node is None:
        fill_table(widget, [], [])
        return
    table = mrml.table_from_node(node)
    fill_table(widget, [mrml.heading(c) for c in table.columns],
               [[_plain(row.get(c.name)) for c in table.columns] for row in table.rows])


def _plain(content):
    """Return a cell's content as text: whole, or three digits; nothing for a missing number."""
    if isinstance(content, float):
        return "" if content != content else f"{content:.0f}" if content.is_integer() else f"{content:.3g}"
    return "" if content is None else str(content)


def add_plot(container, name):
    """Add an empty plot, which screen readers call `name`, to a widget's layout, and return it."""
    plot = slicer.qMRMLPlotView()
    plot.setMRMLScene(slicer.mrmlScene)
    plot.setMinimumHeight(230)
    plot.setAccessibleName(name)
    container.layout().addWidget(plot)
    return plot


def open_in_editor(segmentation, volume):
    """Open a segmentation in the Segment Editor, with its volume if there is one."""
    slicer.util.selectModule("SegmentEditor")
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    editor.setSegmentationNode(segmentation)
    if volume is not None:
        editor.setSourceVolumeNode(volume)


def fill_conventions(combo, first):
    """List the label tables of other tools in a QComboBox, `first` being chosen."""
    from DiscRelaxometryLib.discs import conventions

    names = {"auto": _("Find out from the values"), **{c.key: c.name for c in conventions().values()}}
    with silent(combo):
        for key in [first, *(k for k in names if k != first)]:
            combo.addItem(names[key], key)


def on_row(widget, slot):
    """Call ``slot(row, column)`` when a row of a QTableWidget is clicked, or Enter is pressed on it."""
    widget.cellClicked.connect(slot)
    widget.cellActivated.connect(slot)


def chosen_path(path):
    """Return a path as text, or None where none was chosen."""
    return None if str(path) in ("", ".") else str(path)


def current_data(combo):
    """Return the data of a QComboBox's chosen entry, or None."""
    index = value(combo, "currentIndex")
    return combo.itemData(index) if index >= 0 else None


def choose_data(combo, data):
    """Choose the entry of a QComboBox that holds `data`, if there is one, without telling anyone."""
    index = combo.findData(data)
    if index >= 0:
        with silent(combo):
            combo.setCurrentIndex(index)


def cell(widget, row, column):
    """Return the text of a QTableWidget's cell."""
    item = widget.item(row, column)
    return "" if item is None else value(item, "text")


def number(x, digits=1, none=""):
    """Return a number as text; an empty cell for None and NaN."""
    return none if x is None or x != x else f"{x:.{digits}f}"


def duration(seconds):
    """Return seconds as a short text."""
    if seconds < 90:
        return _("{n} s").format(n=round(seconds))
    return _("{n} min").format(n=round(seconds / 60))
