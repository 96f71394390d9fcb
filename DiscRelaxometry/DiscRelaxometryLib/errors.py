"""Exceptions of the project: one sentence that a radiographer can act on."""

import re

#: The note that ends an error's text; its group is the anchor.
_HELP = re.compile(r" ?\[Help: troubleshooting, '([^']*)'\]")


class DiscRelaxometryError(ValueError):
    """Bad input or settings.

    Parameters
    ----------
    message : str
        What is wrong, where, and what to do about it. The help note of another error's text is taken out of it.
    anchor : str, optional
        Heading in ``Docs/troubleshooting.md`` that explains the problem further; by default that of the note.
    """

    def __init__(self, message: str, anchor: str | None = None):
        noted = _HELP.search(message)
        super().__init__(_HELP.sub("", message))
        self.anchor = anchor or (noted.group(1) if noted else None)

    @property
    def message(self) -> str:
        """The sentence alone."""
        return super().__str__()

    def __str__(self) -> str:
        """Return the sentence, and where the troubleshooting page explains it."""
        return f"{self.message} [Help: troubleshooting, '{self.anchor}']" if self.anchor else self.message


class GeometryError(DiscRelaxometryError):
    """Images do not share a grid, or a grid is unusable."""


class EchoSeriesError(DiscRelaxometryError):
    """An echo series is incomplete, mixed, or has no usable times."""


class SegmentationError(DiscRelaxometryError):
    """A segmentation is empty, mislabelled, or was not found in the image."""


class RegistrationError(DiscRelaxometryError):
    """A registration could not be computed or failed its checks."""


class DesignError(DiscRelaxometryError):
    """A statistical design, contrast or participants table cannot be used."""


class StudyError(DiscRelaxometryError):
    """A study folder cannot be processed."""


class OutputError(DiscRelaxometryError, OSError):
    """A result cannot be written; also an OSError, with the operating system's number where it gave one."""

    def __new__(cls, message: str, anchor: str | None = None, errno: int | None = None):
        """Keep OSError from choosing a subclass by the number."""
        return OSError.__new__(cls, message)

    def __init__(self, message: str, anchor: str | None = None, errno: int | None = None):
        super().__init__(message, anchor)
        self.anchor = self.anchor or "output"
        self.errno = errno

    def __reduce__(self):
        """Keep the number between processes."""
        return type(self), (self.message, self.anchor, self.errno)


class Cancelled(Exception):
    """Raised by a progress callback to stop long work between two units."""
