"""Reading and writing nodes headless, through MRML's real storage nodes.

Stands behind ``slicer.app.coreIOManager()``, so that Slicer's own ``slicer.util.loadVolume``, ``loadSegmentation``,
``saveNode`` and their like work unchanged.
"""

from pathlib import Path

#: Kinds of files whose node and storage classes are called alike, where Slicer picks the storage node in the same way.
_PLAIN_TYPES = ("TransformFile", "TableFile", "TextFile", "ModelFile", "ColorTableFile", "SegmentationFile",
                "SequenceFile")
_TYPE_BY_SUFFIX = (
    (".seg.nrrd", "SegmentationFile"), (".seg.nhdr", "SegmentationFile"), (".seq.nrrd", "SequenceFile"),
    (".mrb", "SceneFile"), (".mrml", "SceneFile"), (".h5", "TransformFile"), (".tfm", "TransformFile"),
    (".tsv", "TableFile"), (".csv", "TableFile"), (".txt", "TextFile"), (".vtk", "ModelFile"), (".stl", "ModelFile"),
    (".ctbl", "ColorTableFile"), (".nrrd", "VolumeFile"), (".nii.gz", "VolumeFile"), (".nii", "VolumeFile"),
    (".mha", "VolumeFile"),
)
_ERROR_EVENT = 24  # vtkCommand::ErrorEvent
_LABEL_MAP_OPTION, _SINGLE_FILE_OPTION = 1, 8


def _stem(path: Path) -> str:
    """Return the file name without the suffixes that choose a format."""
    name = path.name
    for suffix in (".seg.nrrd", ".seq.nrrd", ".nii.gz"):
        if name.lower().endswith(suffix):
            return name[:-len(suffix)]
    return path.stem


def _readable(path: Path) -> bool:
    """Return whether the image header reads; the C++ reader ends the whole process on a damaged one."""
    import SimpleITK as sitk

    try:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
    except RuntimeError:
        return False
    return True


class HeadlessIOManager:
    """The part of qSlicerCoreIOManager that ``slicer.util`` calls."""

    def __init__(self, slicer):
        self._slicer = slicer

    @property
    def _scene(self):
        return self._slicer.mrmlScene

    def fileType(self, path) -> str:
        """Return the file type of a path from its suffix."""
        name = str(path).lower()
        return next((kind for suffix, kind in _TYPE_BY_SUFFIX if name.endswith(suffix)), "VolumeFile")

    def fileWriterFileType(self, node) -> str:
        """Return the file type that writes a node; storage nodes decide the rest."""
        return node.GetClassName()

    def loadNodes(self, file_type: str, properties: dict, loaded, messages=None) -> bool:
        """Load a file into the scene, append its nodes to the collection `loaded`, and return success."""
        path = Path(properties["fileName"])
        if not path.exists():
            self._say(messages, f"'{path}' does not exist.")
            return False
        name = properties.get("name") or _stem(path)
        if file_type == "SceneFile":
            return self._load_scene(path)
        if file_type == "VolumeFile":
            options = _SINGLE_FILE_OPTION | (_LABEL_MAP_OPTION if properties.get("labelmap") else 0)
            node = self._slicer.modules.volumes.logic().AddArchetypeVolume(str(path), name, options)
        elif file_type in _PLAIN_TYPES:
            node = self._load_plain(file_type, path, name)
        else:
            self._say(messages, f"Reading a {file_type} needs the Slicer application.")
            return False
        if node is None:
            self._say(messages, f"'{path.name}' cannot be read as {file_type}.")
            return False
        loaded.AddItem(node)
        return True

    def saveNodes(self, file_type: str, properties: dict, messages=None) -> bool:
        """Write the node ``properties['nodeID']`` to ``properties['fileName']`` and return success."""
        path = str(properties["fileName"])
        if file_type == "SceneFile" or path.lower().endswith((".mrb", ".mrml")):
            return self._save_scene(path)
        node = self._scene.GetNodeByID(properties["nodeID"])
        node.AddDefaultStorageNode(path)
        storage = node.GetStorageNode()
        if storage is None or not storage.SupportedFileType(path):
            self._say(messages, f"A {node.GetClassName()} cannot be written as '{Path(path).name}'.")
            return False
        storage.SetFileName(path)
        storage.SetUseCompression(bool(properties.get("useCompression", True)))
        return bool(storage.WriteData(node))

    def _load_plain(self, file_type: str, path: Path, name: str):
        if file_type in ("SegmentationFile", "SequenceFile") and not _readable(path):
            return None
        kind = f"vtkMRML{file_type.removesuffix('File')}"
        node_class, storage_class = f"{kind}Node", f"{kind}StorageNode"
        if file_type == "SequenceFile" and not str(path).lower().endswith((".mrb", ".mrml")):
            storage_class = "vtkMRMLVolumeSequenceStorageNode"
        storage = self._scene.AddNewNodeByClass(storage_class)
        storage.SetFileName(str(path))
        if file_type == "TransformFile":
            node_class = self._transform_class(storage, node_class)
        node = self._scene.AddNewNodeByClass(node_class, self._scene.GenerateUniqueName(name))
        node.SetAndObserveStorageNodeID(storage.GetID())
        if not storage.ReadData(node):
            self._scene.RemoveNode(node)
            self._scene.RemoveNode(storage)
            return None
        node.CreateDefaultDisplayNodes() if hasattr(node, "CreateDefaultDisplayNodes") else None
        return node

    def _transform_class(self, storage, default: str) -> str:
        """Return the class that fits a transform file, as Slicer's reader does: linear stays editable as a matrix."""
        trial = self._slicer.vtkMRMLTransformNode()
        if storage.ReadData(trial) and trial.IsLinear():
            return "vtkMRMLLinearTransformNode"
        return default

    def _load_scene(self, path: Path) -> bool:
        if path.suffix.lower() == ".mrb":
            return bool(self._scene.ReadFromMRB(str(path)))
        self._scene.SetURL(str(path))
        return bool(self._scene.Import())

    def _save_scene(self, path: str) -> bool:
        if path.lower().endswith(".mrb"):
            return bool(self._scene.WriteToMRB(path))
        self._scene.SetRootDirectory(str(Path(path).parent))
        self._scene.SetURL(path)
        return bool(self._scene.Commit(path))

    def _say(self, messages, text: str) -> None:
        if messages is not None:
            messages.AddMessage(_ERROR_EVENT, text)
