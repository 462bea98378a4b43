"""How anomalib learns of our classes without an import by hand: entry points and a post-import hook.

anomalib has no plugin mechanism, but importing it imports torch, and torch calls the entry points of the group
``torch.backends`` at the end of its own import. Ours is ``install``. It waits for ``anomalib.models`` and
``anomalib.data`` to be imported and then sets the classes of the entry-point groups of those names on them. Nothing
here may ever make an import fail or slow, so: standard library only, nothing imported early, every error logged and
swallowed. ``TORCH_DEVICE_BACKEND_AUTOLOAD=0`` switches it off.
"""

from __future__ import annotations

import logging
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

logger = logging.getLogger(__name__)
_HOSTS = ("anomalib.models", "anomalib.data")
_LAST_CHILD = "anomalib.models.video"  # its end is as good as that of anomalib.models, and comes before it
_EXECUTED = "__anomalib_clipad_executed__"
"""What is set on a module of anomalib's once it was executed to its end."""


def install() -> None:
    """Attach the plugins' classes as soon as anomalib's modules are imported."""
    try:
        if not any(type(finder).__name__ == _PostImportFinder.__name__ for finder in sys.meta_path):
            sys.meta_path.insert(0, _PostImportFinder())
        attach_plugins()
    except Exception:
        logger.exception("anomalib_clipad could not prepare its registration; `import torch` goes on without it.")


def attach_plugins() -> None:
    """Set every class of the entry-point groups on anomalib's module of that name, if it is imported and lacks it."""
    from importlib.metadata import entry_points

    for name in _HOSTS:
        host = sys.modules.get(name)
        if host is None:
            continue
        if _is_importing(host) and _LAST_CHILD not in sys.modules and not getattr(host, _EXECUTED, False):
            _attach_later(host)
            continue
        _attach_now(host)
        for entry_point in entry_points(group=name):
            if hasattr(host, entry_point.name):
                continue  # ours already, or anomalib's own of that name, which takes precedence
            try:
                setattr(host, entry_point.name, entry_point.load())
            except Exception:
                if (outermost := _half_imported(entry_point)) is not None:
                    _attach_after(outermost)  # it imports anomalib right now, and the class needs the rest of it
                    continue
                logger.exception("%s (%s) of '%s' could not be loaded.", entry_point.name, entry_point.value, name)


def _is_importing(module: ModuleType | None) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def _half_imported(entry_point: EntryPoint) -> ModuleType | None:
    """The first module of the class's distribution that is being imported: its import ends last."""
    package = entry_point.module.partition(".")[0]
    modules = [module for name, module in sys.modules.copy().items() if f"{name}.".startswith(f"{package}.")]
    return next(filter(_is_importing, modules), None)


def _attach_after(module: ModuleType) -> None:
    """Attach when the import of a module ends."""
    spec = module.__spec__
    if type(spec) is ModuleSpec:
        spec.__class__ = _ActingSpec


class _ActingSpec(ModuleSpec):
    """The specification of a module that is being imported: the import system notes in it when that ends."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "_initializing" and not value:
            self.__class__ = cast("Any", ModuleSpec)
            _attach_quietly(self.name)


def _attach_quietly(imported: str) -> None:
    """Attach after an import, which goes on whatever happens here."""
    try:
        attach_plugins()
    except Exception:
        logger.exception("anomalib_clipad could not attach its classes after the import of %s.", imported)


def _attach_later(host: ModuleType) -> None:
    """Attach when a name is asked for that the module lacks."""
    if type(host) is ModuleType:
        host.__class__ = _AttachingModule


def _attach_now(host: ModuleType) -> None:
    if type(host).__name__ == _AttachingModule.__name__:
        host.__class__ = ModuleType


class _AttachingModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if not _is_importing(self):
            attach_plugins()
            if name in vars(self):
                return vars(self)[name]
        msg = f"module {self.__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)


class _PostImportFinder:
    """A ``sys.meta_path`` finder that finds what the others find, and acts after anomalib's modules were executed."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> Any:
        if name not in (*_HOSTS, _LAST_CHILD):
            return None
        for finder in sys.meta_path:
            if type(finder).__name__ == type(self).__name__ or not hasattr(finder, "find_spec"):
                continue  # one of us, or a legacy finder
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = cast("Any", _ActingLoader(spec.loader))
                return spec
        return None


class _ActingLoader:
    """A loader in the place of another, until it has executed its module."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> ModuleType | None:
        spec.loader = self._loader
        create = getattr(self._loader, "create_module", None)
        module: ModuleType | None = create(spec) if create is not None else None
        spec.loader = self
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        setattr(module, _EXECUTED, True)
        _attach_quietly(module.__name__)
