"""Take a file that is dropped on a widget; PythonQt and PySide6 both call an event filter written in Python."""

from slicer.i18n import tr as _


def local_path(text):
    """Return the path of the last file URL in a text, which a drop may have appended to a former path."""
    import qt

    url = text[text.rindex("file:"):].strip()
    rest = url.removeprefix("file:").lstrip("/\\")
    # A path object folds the three slashes of a URL into one; a drive letter needs no root.
    return qt.QUrl("file:///" + rest.replace("\\", "/")).toLocalFile()


class FileDrop:
    """Calls ``onFile(path)`` with the first local file that is dropped on a view.

    :param view: QAbstractScrollArea such as a QTableWidget.
    :param onFile: function of a path.
    """

    def __init__(self, view, onFile):
        import qt

        class Filter(qt.QObject):
            def eventFilter(self, watched, event):
                if event.type() not in (qt.QEvent.DragEnter, qt.QEvent.DragMove, qt.QEvent.Drop):
                    return False
                paths = [u.toLocalFile() for u in event.mimeData().urls() if u.isLocalFile()]
                if not paths:
                    return False
                event.acceptProposedAction()
                if event.type() == qt.QEvent.Drop:
                    onFile(paths[0])
                return True

        self._target, self._filter = view.viewport(), Filter()
        view.setAcceptDrops(True)
        self._target.setAcceptDrops(True)
        self._target.installEventFilter(self._filter)
        view.setToolTip(_("First 200 rows of the table. Drop a TSV or CSV file here"))

    def close(self):
        """Stop watching."""
        self._target.removeEventFilter(self._filter)
