"""The review of a study: what to look at in which order, images, decisions, and the page that shows them."""

from .page import LINK, ReviewPage, write_link
from .session import Look, Session
from .viewer import SlicerViews
from .volumes import Volume, group_volumes, person_images, person_volumes

__all__ = [
    "group_volumes", "LINK", "Look", "person_images", "person_volumes", "ReviewPage", "Session",
    "SlicerViews", "Volume", "write_link",
]
