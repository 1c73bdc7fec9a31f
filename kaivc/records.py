"""Records: the standard library's ``dataclass``, at a tenth of what it costs to declare one.

A command line imports some fifty classes of records, makes a few instances, and ends. ``dataclasses`` imports
``inspect``, and writes and compiles six methods for each class. Here the methods are shared; a class with so many
instances that it pays gets the compiled ``__init__`` after all. ``dataclasses.fields``, ``asdict`` and ``replace`` take
such records too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
    from typing import Any

    from _typeshed import DataclassInstance

    __all__ = ["dataclass", "field", "replace", "values"]

    def values(record: DataclassInstance, /) -> dict[str, Any]:
        """The fields of a record by name, each as it is."""
else:
    from operator import attrgetter

    MANY = 100
    """Instances of a class, after which compiling pays."""

    def dataclass(cls=None, /, *, frozen=False):
        """Make a class one of records: its fields are its annotations; ``frozen``, it can be hashed, not changed."""
        if cls is None:
            return lambda it: _record(it, frozen=frozen)
        return _record(cls, frozen=frozen)

    class field:  # noqa: N801 - as in the standard library
        """What is said of a field: its ``default``, or its ``default_factory``, and whether to ``compare`` it."""

        __slots__ = ("compare", "options")

        def __init__(self, **options):
            self.options = options
            self.compare = options.get("compare", True)

    def replace(record, /, **changes):
        """A copy with some fields changed."""
        return record.__class__(**{**values(record), **changes})

    def values(record, /):
        """The fields of a record by name, each as it is."""
        return {name: getattr(record, name) for name in record.__match_args__}

    # ------------------------------------------------------------ how

    def _record(cls, *, frozen):
        own = dict(vars(cls))
        names = tuple(it for it, kind in own.get("__annotations__", {}).items() if not kind.startswith("ClassVar["))
        said = {name: own[name] for name in names if isinstance(own.get(name), field)}
        for name, it in said.items():
            delattr(cls, name)
            if "default" in it.options:
                setattr(cls, name, it.options["default"])
        compared = [name for name in names if name not in said or said[name].compare]
        compiled = _Compiled(cls, own, names, frozen=frozen)
        methods = {"__init__": _init(cls, names, said, compiled), "__repr__": _repr}
        if "__eq__" not in own:
            cls._compared = staticmethod(attrgetter(*compared) if compared else _nothing)
            methods |= {"__eq__": _eq, "__hash__": _hash if frozen else None}
        if frozen:
            methods |= {"__setattr__": _refuse_value, "__delattr__": _refuse_deletion}
        for name, method in methods.items():
            if name not in own:
                setattr(cls, name, method)
        cls.__match_args__ = names
        cls.__dataclass_fields__ = compiled
        return cls

    def _init(cls, names, said, compiled):
        makers = {name: it.options["default_factory"] for name, it in said.items() if "default_factory" in it.options}
        usual = {name: getattr(cls, name) for name in names if hasattr(cls, name)}
        after = getattr(cls, "__post_init__", None)
        put = object.__setattr__
        made = 0

        def __init__(self, *args, **given):  # noqa: N807 - it becomes one
            nonlocal made
            made += 1
            rest = names[len(args) :]
            if made > MANY or len(args) > len(names) or not given.keys() <= set(rest):
                compiled.init(self, *args, **given)
                return
            for name, value in zip(names, args, strict=False):
                put(self, name, value)
            for name in rest:
                if name in given:
                    put(self, name, given[name])
                elif name in makers:
                    put(self, name, makers[name]())
                elif name in usual:
                    put(self, name, usual[name])
                else:
                    compiled.init(self, *args, **given)  # it says what is missing
            if after is not None:
                after(self)

        return __init__

    class _Compiled:
        """What the standard library makes of a class: ``__dataclass_fields__`` for those who ask, and ``__init__``."""

        def __init__(self, cls, own, names, *, frozen):
            self.cls, self.own, self.names, self.frozen = cls, own, names, frozen

        def __get__(self, instance, owner):
            import dataclasses

            space = {name: self.own[name] for name in (*self.names, "__post_init__") if name in self.own}
            said = {name: dataclasses.field(**it.options) for name, it in space.items() if isinstance(it, field)}
            kinds = {name: self.own["__annotations__"][name] for name in self.names}
            like = type(self.cls.__name__, (), {**space, **said, "__annotations__": kinds})
            done = dataclasses.dataclass(frozen=self.frozen)(like)
            self.cls.__dataclass_fields__, self.cls.__init__ = done.__dataclass_fields__, done.__init__
            return done.__dataclass_fields__

        def init(self, record, /, *args, **given):
            """Put the compiled ``__init__`` in place, and call it."""
            _ = self.cls.__dataclass_fields__
            self.cls.__init__(record, *args, **given)

    def _nothing(_):
        return ()

    def _repr(self):
        fields = ", ".join(f"{name}={value!r}" for name, value in values(self).items())
        return f"{self.__class__.__qualname__}({fields})"

    def _eq(self, other):
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self is other or self._compared(self) == self._compared(other)

    def _hash(self):
        return hash(self._compared(self))

    def _refuse_value(self, name, value):  # noqa: ARG001 - as it is called
        _refuse(f"cannot assign to field {name!r}")

    def _refuse_deletion(self, name):  # noqa: ARG001 - as it is called
        _refuse(f"cannot delete field {name!r}")

    def _refuse(what):
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(what)
