"""A function of the project replaced by one that keeps what it is given."""

import inspect


class Recorder:
    """Stands in place of a function of the project: checks the call by its signature, and keeps the arguments."""

    def __init__(self, monkeypatch, module, name: str, result):
        self.signature, self.result, self.given = inspect.signature(getattr(module, name)), result, {}
        monkeypatch.setattr(module, name, self)

    def __call__(self, *args, **kwargs):
        bound = self.signature.bind(*args, **kwargs)
        self.given = dict(bound.arguments)
        for name, parameter in self.signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                self.given |= self.given.pop(name, {})
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def check(self, unused=(), **expected) -> None:
        """Compare all arguments; a parameter of the function that is neither expected nor named as unused fails."""
        known = {n for n, p in self.signature.parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}
        assert known <= set(expected) | set(unused)
        self.given.pop("progressCallback", None)
        assert self.given == expected
