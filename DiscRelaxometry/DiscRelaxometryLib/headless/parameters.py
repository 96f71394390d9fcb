"""``slicer.parameterNodeWrapper`` outside Slicer: typed attributes kept in a scripted module node.

Values are written as Slicer writes them (numbers and enum names as text, booleans as ``True``/``False``, lists as
``name.len`` and ``name.0`` ..., nodes as node references), so that a scene saved on one side opens on the other.
"""

import enum
import pathlib
import types
import typing


class Default:
    """Annotation: the value a parameter starts with."""

    def __init__(self, value):
        self.value = value


class WithinRange:
    """Annotation: a closed range."""

    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value) -> None:
        """Raise ValueError outside the range."""
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within [{self.minimum}, {self.maximum}], not {value}.")


def _forwarded(name: str):
    return lambda self, *arguments: getattr(self.parameterNode, name)(*arguments)


class _Serializer:
    """Reads and writes one parameter of a type."""

    def __init__(self, kind, annotations, slicer):
        self.kind, self.slicer = kind, slicer
        self.origin = typing.get_origin(kind)
        self.is_node = isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)
        self.validators = [a for a in annotations if hasattr(a, "validate")]
        self.items = None
        if kind is list or self.origin is list:
            self.items = _Serializer((typing.get_args(kind) or (str,))[0], [], slicer)
        elif not self.is_node and not (isinstance(kind, type)
                                       and issubclass(kind, (str, int, float, bool, enum.Enum, pathlib.PurePath))):
            raise TypeError(f"A parameter of type {kind} is not supported headless.")

    def default(self):
        if self.is_node:
            return None
        if self.items:
            return []
        if issubclass(self.kind, enum.Enum):
            return next(iter(self.kind))
        return self.kind()

    def has(self, node, name: str) -> bool:
        return bool(node.HasParameter(f"{name}.len" if self.items else name))

    def read(self, node, name: str):
        if self.is_node:
            return node.GetNodeReference(name)
        if self.items:
            return [self.items.read(node, f"{name}.{i}") for i in range(int(node.GetParameter(f"{name}.len")))]
        text = node.GetParameter(name)
        if self.kind is bool:
            return text == "True"
        return self.kind[text] if issubclass(self.kind, enum.Enum) else self.kind(text)

    def write(self, node, name: str, value) -> None:
        self._check(name, value)
        if self.is_node:
            node.SetParameter(name, "")
            node.SetNodeReferenceID(name, value.GetID() if value is not None else None)
        elif self.items:
            old = int(node.GetParameter(f"{name}.len") or 0)
            for index, item in enumerate(value):
                self.items.write(node, f"{name}.{index}", item)
            for index in range(len(value), old):
                node.UnsetParameter(f"{name}.{index}")
                node.RemoveNodeReferenceIDs(f"{name}.{index}")
            node.SetParameter(f"{name}.len", str(len(value)))
        else:
            node.SetParameter(name, value.name if isinstance(value, enum.Enum) else str(value))

    def _check(self, name: str, value) -> None:
        accepted = list if self.items else (int, float) if self.kind is float else self.kind
        if (value is None and not self.is_node) or (value is not None and not isinstance(value, accepted)):
            raise TypeError(f"Parameter '{name}' needs {self.kind}, not {value!r}.")
        for validator in self.validators:
            validator.validate(value)


class _Wrapper:
    """Methods that every wrapped class receives."""

    allParameters: dict
    StartModify, EndModify, AddObserver, RemoveObserver = (
        _forwarded(name) for name in ("StartModify", "EndModify", "AddObserver", "RemoveObserver"))

    def __init__(self, parameterNode):
        self.parameterNode = parameterNode
        self._guis = {}
        for name, (serializer, default) in self.allParameters.items():
            if not serializer.has(parameterNode, name):
                serializer.write(parameterNode, name, default)

    def getValue(self, name: str):
        """Return a parameter by name."""
        return self.allParameters[name][0].read(self.parameterNode, name)

    def setValue(self, name: str, value) -> None:
        """Set a parameter by name."""
        was = self.parameterNode.StartModify()
        try:
            self.allParameters[name][0].write(self.parameterNode, name, value)
        finally:
            self.parameterNode.EndModify(was)

    def connectGui(self, gui):
        """Bind widgets that carry SlicerParameterName; a Qt host supplies how."""
        raise RuntimeError("Binding widgets needs Qt; headless, set the parameters themselves.")

    def disconnectGui(self, tag) -> None:
        """Undo ``connectGui``."""


def _split(kind):
    """Return the bare type of a hint (Optional and Annotated removed) and its annotations."""
    annotations = []
    if typing.get_origin(kind) is typing.Annotated:
        kind, *annotations = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(a for a in typing.get_args(kind) if a is not type(None))
    return kind, annotations


def module(slicer) -> types.ModuleType:
    """Return the module to install as ``slicer.parameterNodeWrapper``."""

    def parameterNodeWrapper(cls=None):
        """Make a class with type hints read and write a vtkMRMLScriptedModuleNode."""
        return wrap if cls is None else wrap(cls)

    def wrap(cls):
        parameters = {}
        for name, hint in typing.get_type_hints(cls, include_extras=True).items():
            kind, annotations = _split(hint)
            serializer = _Serializer(kind, annotations, slicer)
            annotated = next((a.value for a in annotations if isinstance(a, Default)), None)
            default = getattr(cls, name, annotated if annotated is not None else serializer.default())
            parameters[name] = (serializer, default)
        members = {k: v for k, v in cls.__dict__.items() if k not in ("__dict__", "__weakref__")}
        for name in parameters:
            members[name] = property(lambda self, n=name: self.getValue(n),
                                     lambda self, value, n=name: self.setValue(n, value))
        return type(cls.__name__, (_Wrapper,), members | {"allParameters": parameters})

    result = types.ModuleType("slicer.parameterNodeWrapper", __doc__)
    result.__dict__.update(parameterNodeWrapper=parameterNodeWrapper, Default=Default, WithinRange=WithinRange)
    return result
