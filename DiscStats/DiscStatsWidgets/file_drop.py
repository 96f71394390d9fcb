"""Take a file that is dropped on a widget; PythonQt and PySide6 both call an event filter written in Python."""

def local_path(text):
    """Return the path of the last file URL in a text, which a drop may have appended to a former path."""
    import qt

    url = text[text.rindex("file:"):].strip()
    rest = url.removeprefix("file:").lstrip("/\\")
    # A path object folds the three slashes of a URL into one; a drive letter needs no root.
    return qt.QUrl("file:///" + rest.replace("\\", "/")).toLocalFile()


def _targets(widget):
    """Return the widgets inside that receive drops: the viewport of a view, the text field of a path."""
    if hasattr(widget, "viewport"):
        return [widget.viewport()]
    inside = [w for child in widget.children() for w in _targets(child)]
    return [widget] if hasattr(widget, "setEchoMode") else inside


class FileDrop:
    """Calls ``onFile(path)`` with the first local file that is dropped on views (QTableWidget) and path fields."""

    def __init__(self, widgets, onFile):
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

        self._filter = Filter()
        self._inner = [target for widget in widgets for target in _targets(widget)]
        for target in [*widgets, *self._inner]:
            target.setAcceptDrops(True)
        for target in self._inner:
            target.installEventFilter(self._filter)

    def close(self):
        """Stop watching."""
        for target in self._inner:
            target.removeEventFilter(self._filter)
