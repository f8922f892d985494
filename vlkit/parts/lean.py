"""Importing big libraries without what they load and inference never uses."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_COMPILER, _UTILS = "torch._dynamo", "torch._dynamo.utils"


def import_lean(name: str) -> ModuleType:
    """Imports a library, but puts off ``torch.compile``'s machinery until something is compiled.

    torchvision asks ``torch._dynamo`` one question and timm marks five functions for it; for that both load all of it
    (1500 modules, 2 seconds) while they are imported. Here a stand-in meets them: it keeps the marks and passes the
    question on when it is asked. With versions that want more of it than that, all is loaded as ever.
    """
    if name not in sys.modules and _COMPILER not in sys.modules:
        sys.modules.update({_COMPILER: _StandIn(_COMPILER), _UTILS: _StandIn(_UTILS)})
        try:
            return importlib.import_module(name)
        except (ImportError, AttributeError):
            pass  # what is really wrong, if anything, shows below
        finally:
            _remove_stand_ins()
    return importlib.import_module(name)


class _StandIn(ModuleType):
    """What is asked of ``torch._dynamo`` at import; for all else it turns into the real one."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        if name == _COMPILER:
            self.__path__: list[str] = []
            self.disable = _disable_later
        else:
            self.is_compile_supported = _is_compile_supported

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real(self.__name__), name)


def _real(name: str) -> Any:
    _remove_stand_ins()
    return importlib.import_module(name)


def _remove_stand_ins() -> None:
    for name in (_COMPILER, _UTILS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _is_compile_supported(device_type: Any) -> Any:
    return _real(_UTILS).is_compile_supported(device_type)


_is_compile_supported._dynamo_marked_constant = True  # type: ignore[attr-defined]  # as the real one


def _disable_later(fn: Callable[..., Any], recursive: bool = True, **options: Any) -> Callable[..., Any]:
    """``torch.compiler.disable``, carried out at the first call."""
    if not callable(fn) or not recursive:
        return _real(_COMPILER).disable(fn, recursive, **options)  # type: ignore[no-any-return]
    disabled: list[Callable[..., Any]] = []

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not disabled:
            disabled.append(_real(_COMPILER).disable(fn, recursive, **options))
        return disabled[0](*args, **kwargs)

    call._torchdynamo_disable = True  # type: ignore[attr-defined]  # so that a compiler that comes later steps over it
    call._torchdynamo_orig_callable = fn  # type: ignore[attr-defined]
    return call
