"""How anomalib learns of our model without an import by hand: entry points and one post-import hook.

anomalib has no plugin mechanism, but importing it imports torch, and torch calls the entry points of the group
``torch.backends`` at the end of its own import. Ours is ``install``. It waits for ``anomalib.models`` to be imported
and then sets the classes of the entry-point groups ``anomalib.models`` and ``anomalib.data`` on the modules of those
names. Nothing here may ever make ``import torch`` fail or slow, so: standard library only, nothing imported early,
every error logged and swallowed. ``TORCH_DEVICE_BACKEND_AUTOLOAD=0`` switches it off.
"""

from __future__ import annotations

import logging
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

logger = logging.getLogger(__name__)
_HOST = "anomalib.models"
_GROUPS = (_HOST, "anomalib.data")


def install() -> None:
    """Attach the plugins' classes as soon as ``anomalib.models`` is imported."""
    try:
        if _HOST in sys.modules:
            # torch is being imported by a half-loaded anomalib.models: its last child marks its end.
            target = f"{_HOST}.video"
            if target in sys.modules:
                attach_plugins()
                return
        else:
            target = _HOST
        sys.meta_path.insert(0, _PostImportFinder(target))
    except Exception:
        logger.exception("anomalib_clipad could not prepare its registration; `import torch` goes on without it.")


def attach_plugins() -> None:
    """Set every class of the entry-point groups on anomalib's module of that name, if it is imported and lacks it."""
    from importlib.metadata import entry_points

    for group in _GROUPS:
        host = sys.modules.get(group)
        for entry_point in entry_points(group=group) if host else ():
            if hasattr(host, entry_point.name):
                continue  # ours already, or anomalib's own of that name, which takes precedence
            if _half_imported(entry_point):
                continue  # it imports anomalib right now, and calls this again at its end
            try:
                setattr(host, entry_point.name, entry_point.load())
            except Exception:
                logger.exception("%s (%s) of '%s' could not be loaded.", entry_point.name, entry_point.value, group)


def _half_imported(entry_point: EntryPoint) -> bool:
    module = sys.modules.get(entry_point.module)
    importing = getattr(getattr(module, "__spec__", None), "_initializing", False)
    return importing and not hasattr(module, entry_point.attr)


class _PostImportFinder:
    """A ``sys.meta_path`` finder that finds nothing itself, but acts once after a module was executed."""

    def __init__(self, target: str) -> None:
        self.target = target

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> Any:
        if name != self.target:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                self._act_after(spec.loader)
                return spec
        return None

    def _act_after(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module  # the instance's, so that the class's own is visible again
            execute(module)
            if module.__name__ == self.target:
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                attach_plugins()

        loader.exec_module = exec_module
