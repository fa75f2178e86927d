"""How does torch compute the layers that sentence-transformers puts behind the pooling?

They take and give float [batch, dim].
Source: sentence-transformers 6, `Dense`, `LayerNorm`, `Normalize`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from model_compose.errors import ModelLoadError
from model_compose.tasks.text_embedding.modules import Head


def layer(head: Head, origin: str) -> nn.Module:
    """A layer with its weights. Raises ModelLoadError."""
    match head.kind:
        case "Normalize":
            return _Unit()
        case "LayerNorm":
            norm = nn.LayerNorm(int(head.config["dimension"]))
            weights = _weights(head.folder, origin)
            norm.load_state_dict({key.removeprefix("norm."): x for key, x in weights.items()})
            return norm
    residual = bool(head.config.get("use_residual"))
    return _Dense(_weights(head.folder, origin), _activation(head, origin), residual=residual)


def _activation(head: Head, origin: str) -> nn.Module:
    """A class of torch's own by its name; other names would be code that comes with the weights."""
    name = str(head.config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    found = getattr(nn, name.rpartition(".")[2], None) if name.startswith("torch.nn.") else None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ModelLoadError(f"`{origin}` needs the activation `{name}`, which is not torch's own")
    return found()


def _weights(folder: Path, origin: str) -> dict[str, Tensor]:
    if (folder / "model.safetensors").is_file():
        from safetensors.torch import load_file

        return load_file(folder / "model.safetensors")
    if (folder / "pytorch_model.bin").is_file():
        loaded: dict[str, Tensor] = torch.load(
            folder / "pytorch_model.bin", map_location="cpu", weights_only=True
        )
        return loaded
    raise ModelLoadError(
        f"the weights of `{folder.name}` of `{origin}` are missing",
        hint=f"`{folder.name}/model.safetensors` or `{folder.name}/pytorch_model.bin` lies with the others",
    )


class _Dense(nn.Module):
    """A linear layer with an activation, and perhaps what goes in added to what comes out."""

    def __init__(self, weights: dict[str, Tensor], activation: nn.Module, *, residual: bool) -> None:
        super().__init__()
        self._linear = _linear(weights, "linear")
        self._activation = activation
        self._adds = residual
        self._residual = _linear(weights, "residual") if "residual.weight" in weights else nn.Identity()

    def forward(self, vectors: Tensor) -> Tensor:
        found: Tensor = self._activation(self._linear(vectors))
        return found + self._residual(vectors) if self._adds else found


class _Unit(nn.Module):
    """Length 1."""

    def forward(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors, dim=-1)


def _linear(weights: dict[str, Tensor], name: str) -> nn.Linear:
    weight, bias = weights[f"{name}.weight"].float(), weights.get(f"{name}.bias")
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias.float()})
    return made
