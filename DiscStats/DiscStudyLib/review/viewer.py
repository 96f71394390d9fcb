"""Slicer's own views of a participant in the browser, by trame-slicer on slicer-core: the extra ``viewer``."""

import secrets
from collections.abc import Callable

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.headless import add_color_tables, start_headless
from DiscRelaxometryLib.mrml import segmentation_from_labels, volume_from_image

from .session import Session
from .volumes import person_images

_NODES = ("vtkMRMLSegmentationNode", "vtkMRMLScalarVolumeNode")


class SlicerViews:
    """Three slice views and one in 3-D, served on ``127.0.0.1`` to the browser that holds the token.

    Parameters
    ----------
    session : Session
    port : int
        0 takes any free one; :attr:`address` is known once :meth:`serve` has begun.

    Raises
    ------
    StudyError
        If trame-slicer is not installed.
    """

    def __init__(self, session: Session, port: int = 0):
        try:
            from trame.app import get_server
            from trame.ui.vuetify3 import VAppLayout
            from trame.widgets import html
            from trame_slicer import module
            from trame_slicer.core import LayoutManager, SlicerApp
            from trame_slicer.rca_view import register_rca_factories
        except ImportError as error:
            raise StudyError(f"Slicer's views need the extra 'viewer' ({error.name} is missing): install it in an "
                             "environment of its own, or leave --viewer out.", anchor="review-page") from None
        self.session, self.port, self.token, self.address = session, port, secrets.token_urlsafe(24), ""
        self._images: dict = {}
        self.server = get_server("disc-viewer", client_type="vue3")
        self.server.cli.set_defaults(authKey=self.token)
        self.server.enable_module(module)
        slicer = start_headless()
        self.app = SlicerApp()
        slicer.mrmlScene = self.app.scene  # what the package makes is shown here
        add_color_tables(slicer)
        register_rca_factories(self.app.view_manager, self.server)
        layouts = LayoutManager(self.app.scene, self.app.view_manager, self.server)
        layouts.register_layout_dict(LayoutManager.default_grid_configuration())
        layouts.set_layout("Quad View")
        state = self.server.state
        state.person, state.map, state.maps = "", "", []
        state.change("map")(lambda **_: self._overlay())
        with VAppLayout(self.server) as page, html.Div(style="position: absolute; inset: 0"):
            layouts.initialize_layout_grid(page)
            with html.Div(style="position: absolute; z-index: 2; left: 60px; top: 6px; color: #fff"):
                html.B("{{ person }}")
                with html.Select(v_model=("map",), style="margin-left: 8px; background: #222; color: #fff"):
                    html.Option("Image alone", value="")
                    html.Option("{{ one }}", v_for="one in maps", key="one", value=("one",))

    def show(self, person: str) -> None:
        """Show a participant's image, outlines and maps; to be called in the thread of :meth:`serve`."""
        self._images = person_images(self.session, person)
        for name in _NODES:
            for node in [self.app.scene.GetNthNodeByClass(n, name)
                         for n in range(self.app.scene.GetNumberOfNodesByClass(name))]:
                self.app.scene.RemoveNode(node)
        image, labels = self._images["image"]
        volume = volume_from_image(image, person)
        self.app.display_manager.show_volume_in_slice_background(volume)
        segmentation = segmentation_from_labels(labels, f"{person} discs", volume)
        segmentation.CreateClosedSurfaceRepresentation()
        segmentation.GetDisplayNode().SetVisibility2DFill(False)
        with self.server.state as state:
            state.person, state.map = person, ""
            state.maps = [k for k in self._images if k not in ("image", "automatic", "atlas")]
        self._overlay()
        self.app.display_manager.reset_views()

    def _overlay(self) -> None:
        """Show the chosen map over the image."""
        name, node = self.server.state.map, None
        if name in self._images:
            node = volume_from_image(self._images[name][0], name, name, legend=False)
        self.app.display_manager.show_volume_in_slice_foreground(node)
        for view in self.app.view_manager.get_slice_views():
            view.set_foreground_opacity(0.6 if node else 0.0)

    def ask(self, person: str) -> dict:
        """Show a participant, from another thread; return the page's address."""
        self.loop.call_soon_threadsafe(self.show, person)
        return {"address": self.address}

    def serve(self, beside: Callable[[], None]) -> None:
        """Answer the browser until Ctrl+C; `beside` runs in a thread of its own once :attr:`address` holds."""
        import asyncio
        import threading

        def started(**_):
            self.loop = asyncio.get_running_loop()
            self.address = f"http://127.0.0.1:{self.server.port}/?secret={self.token}"
            threading.Thread(target=beside, daemon=True).start()

        self.server.controller.on_server_ready.add(started)
        self.server.start(host="127.0.0.1", port=self.port, open_browser=False, show_connection_info=False,
                          disable_logging=True)
