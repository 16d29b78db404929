"""Look-ups in embedding tables, caught where torch makes them: modules may shift ids or scale what they find."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class Lookup:
    """A call of `torch.nn.functional.embedding` under way: its ids, and what it gives for these or others."""

    def __init__(self, ids: torch.Tensor, arguments: tuple, options: Mapping[str, Any]) -> None:
        self.ids = ids
        self._arguments, self._options = arguments, options

    def of(self, ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding(ids, *self._arguments, **self._options)


class _Lookups(TorchFunctionMode):
    """Hands each look-up in a table to a function: embeddings that shift their ids or scale what they find included."""

    def __init__(self, tables: Mapping[int, Callable[[Lookup], torch.Tensor]]) -> None:
        super().__init__()
        self.tables = tables

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is nn.functional.embedding and id(args[1]) in self.tables:
            return self.tables[id(args[1])](Lookup(args[0], args[1:], kwargs))
        return function(*args, **kwargs)


def hook_lookups(module: nn.Embedding, tables: Mapping[int, Callable[[Lookup], torch.Tensor]]) -> None:
    """Let the tables' functions, by the id of a table's weight, serve what the module looks up in them.

    While the module is called only: a mode slows every call of torch.
    """
    lookups = _Lookups(tables)

    def begin(*_: object) -> None:
        lookups.__enter__()

    def end(*_: object) -> None:
        lookups.__exit__(None, None, None)

    module.register_forward_pre_hook(begin)
    module.register_forward_hook(end, always_call=True)
