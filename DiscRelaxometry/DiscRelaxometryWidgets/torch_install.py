"""PyTorch through Slicer's PyTorch extension, which knows which build fits the computer; never by a plain pip."""

from slicer.i18n import tr as _

from DiscRelaxometryLib.errors import DiscRelaxometryError

from . import requirements


def ensure_torch(work):
    """Return whether torch and safetensors are there, after installing them if the user agrees."""
    import slicer.packaging
    import slicer.util

    if not slicer.packaging.pip_check(requirements.TORCH):
        try:
            import PyTorchUtils
        except ImportError:
            work.showError(_("The discs could not be segmented."), DiscRelaxometryError(
                _("The engine PyTorch needs Slicer's PyTorch extension: install it in the Extension Manager, restart, "
                  "and try again; or choose ONNX Runtime (80 MB) under Advanced."), anchor="no-inference-engine"))
            return False
        purpose = _("Segmentation with PyTorch needs the package torch (about 1 to 3 GB); Slicer's PyTorch extension "
                    "chooses the build that fits your computer. Install it into Slicer's Python?")
        if not work.agreed(purpose):
            return False
        installed = work.attempt(_("PyTorch could not be installed."), lambda: PyTorchUtils.PyTorchUtilsLogic(
            ).installTorch(askConfirmation=False,
                           torchVersionRequirement=requirements.TORCH.removeprefix("torch")))
        if installed is None:
            return False
    return work.ensurePackages(requirements.TORCH_WEIGHTS, _(
        "The network's weights are read with the package safetensors (1 MB). Install it into Slicer's Python?"))
