"""How do weights become smaller, and who multiplies with them on which device?

bitsandbytes does `fp4` and `nf4`, and `int8` on a GPU. For `int8` on a CPU and for `int4` there are layers
here: they call kernels of torch and, where it has none, make small weights large at each use, which is slow,
but right. Whatever computes, a row's result is its own: nothing is scaled by what else is in the batch.
`docs/decisions/0008-quantization-on-cpu.md` says why it is these and what they cost.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from model_compose.about import install_command
from model_compose.drivers.contract import Quantization
from model_compose.errors import DriverMissing, ModelLoadError

#: Where bitsandbytes has a kernel of its own for `int8`; `fp4` and `nf4` are tried everywhere.
_INT8_OF_BITSANDBYTES: Final = ("cuda", "xpu")

#: Without VNNI, fbgemm adds two products in 16 bits: 7 bits times 8 fit, 8 times 8 do not.
_DIGIT: Final = 63
_ZERO_POINT: Final = 64
_FBGEMM_ROWS: Final = 512  # it fills up the input features of a layer to a multiple of these
_FBGEMM_COLUMNS: Final = 8

#: Weights of `int4` that share a scale, and what torch's kernel wants the outputs to be a multiple of.
_GROUP: Final = 32
_OUTPUTS: Final = 16
_TINY: Final = 1e-30

_PROBE_ERROR: Final = 0.01


class QuantizedLinear(nn.Module):
    """A linear layer with small weights; its results have the number format of its inputs.

    weight  empty: shows code that looks at it a number format and a device, and fails where it is multiplied
    """

    how: ClassVar[str]
    weight: Tensor
    codes: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        """weight  float [out, in]"""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.dtype = dtype
        self.register_buffer("weight", torch.empty(0, dtype=weight.dtype, device=weight.device), False)
        self._keep(weight.detach().float())

    def _keep(self, weight: Tensor) -> None:
        raise NotImplementedError

    def _product(self, rows: Tensor) -> Tensor:
        """[rows, in] -> [rows, out], in a number format of its own."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        y = self._product(x.reshape(-1, self.in_features))
        if self.bias is not None:
            y = y + self.bias
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)

    @property
    def packed_bytes(self) -> int:
        """Memory of weights that no tensor shows."""
        return 0

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.how}"


class Int8(QuantizedLinear):
    """Integers of 8 bits times activations of 14, scaled per row.

    An activation is two digits of 7 bits, and each digit a row of its own for a kernel that knows but one
    scale. Sums of integers are exact, so a row alone gives the same bits as in a batch. One digit would be
    up to twice as fast, and spoils more than `int4` does.
    """

    how = "14-bit activations scaled per row (fbgemm)"

    def _keep(self, weight: Tensor) -> None:
        codes, scales = _int8(weight)
        zeros = torch.zeros(self.out_features, dtype=torch.int64)
        with _fbgemm():
            whole = torch._make_per_channel_quantized_tensor(codes, scales.double().squeeze(1), zeros, 0)
            self._packed = torch.ops.quantized.linear_prepack(whole, None)
        self._multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default

    def _product(self, rows: Tensor) -> Tensor:
        rows = rows.float()
        scale = rows.abs().amax(-1, keepdim=True).mul_(1 / _DIGIT).clamp_min_(_TINY)
        digits = rows.new_empty((2, *rows.shape))
        high, low = digits.unbind()
        torch.div(rows, scale, out=low)
        torch.round(low, out=high)
        low.sub_(high).mul_(2 * _DIGIT)
        of_high, of_low = self._multiply(digits, 1.0, _ZERO_POINT, self._packed).unbind()
        y: Tensor = of_high.add_(of_low, alpha=1 / (2 * _DIGIT)).mul_(scale)
        return y

    @property
    def packed_bytes(self) -> int:
        """What fbgemm allocates: codes, and a scale, a zero point and a sum for each output."""
        rows = math.ceil(self.in_features / _FBGEMM_ROWS) * _FBGEMM_ROWS
        columns = math.ceil(self.out_features / _FBGEMM_COLUMNS) * _FBGEMM_COLUMNS
        return rows * columns + 12 * self.out_features


class Int8AtUse(QuantizedLinear):
    """Integers of 8 bits that become floats at each use."""

    how = "weights made float at each use (torch)"

    def _keep(self, weight: Tensor) -> None:
        codes, scales = _int8(weight)
        self.register_buffer("codes", codes, False)
        self.register_buffer("scales", scales.T.contiguous(), False)

    def _product(self, rows: Tensor) -> Tensor:
        return nn.functional.linear(rows.to(self.dtype), self.codes.to(self.dtype)) * self.scales


class Int4(QuantizedLinear):
    """Integers of 4 bits, a scale and an offset for 32 of them, times activations in bfloat16."""

    how = "groups of 32, bfloat16 activations (torch int4pack)"

    def _keep(self, weight: Tensor) -> None:
        codes, scales = _int4(weight, _OUTPUTS)
        self._fill = codes.shape[1] - self.in_features
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.int(), 1)
        self.register_buffer("codes", packed, False)
        self.register_buffer("scales", scales, False)

    def _product(self, rows: Tensor) -> Tensor:
        rows = rows.to(torch.bfloat16).contiguous()
        if self._fill:
            rows = nn.functional.pad(rows, (0, self._fill))
        y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.codes, _GROUP, self.scales)
        return y[:, : self.out_features]


class Int4AtUse(QuantizedLinear):
    """The same integers of 4 bits; they become floats at each use."""

    how = "groups of 32, weights made float at each use (torch)"

    def _keep(self, weight: Tensor) -> None:
        codes, scales = _int4(weight, 1)
        self.register_buffer("codes", codes[:, ::2] | (codes[:, 1::2] << 4), False)
        self.register_buffer("scales", scales, False)

    def _product(self, rows: Tensor) -> Tensor:
        scale, offset = self.scales.to(self.dtype).transpose(0, 1).unsqueeze(-2).unbind(-1)
        codes = torch.stack((self.codes & 15, self.codes >> 4), -1).view(self.out_features, -1, _GROUP)
        weight = torch.addcmul(offset, codes.to(self.dtype) - 8, scale).flatten(1)
        return nn.functional.linear(rows.to(self.dtype), weight[:, : self.in_features])


def while_loading(quantization: Quantization, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What `from_pretrained` is to be given beside the rest. Raises ModelLoadError, DriverMissing."""
    if quantization.type == "int8" and quantization.compute_dtype is not None:
        raise ModelLoadError(
            "`compute_dtype` does not go with `int8`, which multiplies integers",
            hint="leave it out, or choose `int4`, `fp4` or `nf4`",
        )
    if not _is_of_bitsandbytes(quantization, device):
        return {}
    _require_bitsandbytes(quantization, device)
    import transformers

    config: Any = transformers.BitsAndBytesConfig
    if quantization.type == "int8":
        # With a threshold, an outlier in one row would change how its column is computed in all rows.
        return {"quantization_config": config(load_in_8bit=True, llm_int8_threshold=0.0)}
    computed = getattr(torch, quantization.compute_dtype) if quantization.compute_dtype else dtype
    return {
        "quantization_config": config(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization.type,
            bnb_4bit_compute_dtype=computed,
            bnb_4bit_use_double_quant=quantization.double_quant,
        )
    }


def after_loading(
    model: Any, quantization: Quantization, device: torch.device, between: Callable[[], None] = lambda: None
) -> str:
    """Quantize in place what was not quantized while loading; says how it is computed, and what stays float.

    between  called now and then, when some layers are done
    Raises ModelLoadError when nothing is left to quantize, or the weights came quantized.
    """
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None and quantizer.pre_quantized:
        raise ModelLoadError(
            "`quantization` does not go with weights that are quantized already",
            hint="leave it out, or choose weights that are not",
        )
    if _is_of_bitsandbytes(quantization, device):
        count = sum(type(module).__name__ in ("Linear4bit", "Linear8bitLt") for module in model.modules())
        how = "double quantization (bitsandbytes)" if quantization.double_quant else "bitsandbytes"
    else:
        if len(set(getattr(model, "hf_device_map", {}).values())) > 1:
            raise ModelLoadError(
                f"`{quantization.type}` cannot be spread over several devices here",
                hint="choose `nf4`, or leave `device_mode` out",
            )
        layer, dtype = _layer(quantization, device, model)
        count = _replace(model, layer, dtype, between)
        how = layer.how
    if not count:
        raise ModelLoadError(
            f"`{type(model).__name__}` has no linear layer that could be quantized",
            hint="leave `quantization` out",
        )
    return f"{quantization.type}, {how}{_rest(model)}"


def quantized_bytes(model: nn.Module) -> int:
    """Memory that parameters, buffers and packed weights of a model take; what is shared counts once."""
    tensors: list[Any] = [*model.parameters(), *model.buffers()]
    tensors += [tensor for parameter in model.parameters() for tensor in _of_bitsandbytes(parameter)]
    storages = {s.data_ptr(): s.nbytes() for s in (tensor.untyped_storage() for tensor in tensors)}
    packed = sum(module.packed_bytes for module in model.modules() if isinstance(module, QuantizedLinear))
    return int(sum(storages.values())) + packed


def _is_of_bitsandbytes(quantization: Quantization, device: torch.device) -> bool:
    if quantization.type == "int8":
        return device.type in _INT8_OF_BITSANDBYTES
    return quantization.type != "int4"


def _require_bitsandbytes(quantization: Quantization, device: torch.device) -> None:
    """Let bitsandbytes quantize something on the device. Raises ModelLoadError, DriverMissing."""
    try:
        import bitsandbytes.functional as bnb
    except ImportError as error:
        raise DriverMissing(
            f"`bitsandbytes` cannot be imported: {error}", hint=install_command("huggingface")
        ) from error
    # It says at each product that it casts; that is known.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    given = torch.linspace(-1, 1, 4096, device=device).view(64, 64)
    try:
        if quantization.type == "int8":
            bnb.int8_vectorwise_quant(given.half())
            return
        codes, state = bnb.quantize_4bit(given, quant_type=quantization.type)
        back = bnb.dequantize_4bit(codes, state)
    except Exception as error:
        raise ModelLoadError(
            f"`bitsandbytes` cannot compute `{quantization.type}` on `{device}`: {error}",
            hint="choose `int4` or `int8`, or another device",
        ) from error
    if not (back - given).abs().max() < 0.25:  # half of the widest step of both is 0.17
        raise ModelLoadError(f"`bitsandbytes` computes `{quantization.type}` wrongly on `{device}`")


def _of_bitsandbytes(parameter: nn.Parameter) -> Iterator[Tensor]:
    """Scales and tables that hang on a parameter of bitsandbytes."""
    states = [getattr(parameter, "quant_state", None), getattr(parameter, "SCB", None)]
    while states:
        state = states.pop()
        if isinstance(state, Tensor):
            yield state
        elif state is not None:
            states += [state.absmax, state.code, state.offset, state.state2]


def _layer(
    quantization: Quantization, device: torch.device, model: Any
) -> tuple[type[QuantizedLinear], torch.dtype]:
    """The fastest layer that computes rightly here, and what it computes in where it has a choice."""
    asked = getattr(torch, quantization.compute_dtype) if quantization.compute_dtype else None
    dtype = asked or next(p.dtype for p in model.parameters() if p.is_floating_point())
    if quantization.type == "int8":
        return (Int8 if device.type == "cpu" and _computes(Int8) else Int8AtUse), dtype
    # Elsewhere, and in other number formats, the same kernel is there and computes number by number.
    fast = device.type == "cpu" and torch.backends.cpu.get_cpu_capability().startswith("AVX")
    if fast and asked in (None, torch.bfloat16) and _computes(Int4):
        return Int4, torch.bfloat16
    return Int4AtUse, dtype


def _computes(layer: type[QuantizedLinear]) -> bool:
    """Whether the kernel of a layer exists, is right, and keeps an outlier from the other rows."""
    reference = Int8AtUse if layer is Int8 else Int4AtUse
    random = torch.Generator().manual_seed(0)
    weight, rows = torch.randn(48, 96, generator=random), torch.randn(5, 96, generator=random)
    rows[0, 0] = 1e4
    try:
        y = layer(weight, None, torch.float32)
        with torch.inference_mode():
            batch, alone = y(rows), y(rows[1:2])
            expected = reference(weight, None, torch.float32)(rows)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    close = (batch - expected).norm(dim=1) < _PROBE_ERROR * expected.norm(dim=1)
    return bool(close.all()) and torch.equal(batch[1:2], alone)


def _replace(
    model: nn.Module,
    layer: type[QuantizedLinear],
    dtype: torch.dtype,
    between: Callable[[], None] = lambda: None,
) -> int:
    """Put quantized layers in place of linear ones, one after the other; how many."""
    names: dict[int, list[str]] = defaultdict(list)
    for name, module in model.named_modules(remove_duplicate=False):
        if _is_linear(module):
            names[id(module)].append(name)
    for i, same in enumerate(names.values()):
        if i % (len(names) // 32 + 1) == 0:
            between()
        old: Any = model.get_submodule(same[0])
        # That of GPT-2 lies the other way round.
        weight = old.weight if type(old) is nn.Linear else old.weight.T
        new = layer(weight.detach(), old.bias, dtype).train(old.training)
        for name in same:
            model.set_submodule(name, new)
    return len(names)


def _is_linear(module: nn.Module) -> bool:
    """Classes derived from `Linear` are left alone: others than its `forward` use their weights."""
    kind = type(module)
    return kind is nn.Linear or (kind.__name__, kind.__module__) == ("Conv1D", "transformers.pytorch_utils")


def _rest(model: nn.Module) -> str:
    """What stays in floats, for people."""
    linear = [name for name, module in model.named_modules() if _is_linear(module)]
    floats = {p.data_ptr(): p.nbytes for p in model.parameters() if p.is_floating_point()}
    shown = ", ".join(f"`{name}`" for name in linear[:3]) + (", ..." if len(linear) > 3 else "")
    beside = f", {shown} among them" if linear else ""
    return f"; {sum(floats.values()) / 1e6:.0f} MB stay float{beside}"


def _int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int8 [out, in] and scales float [out, 1]."""
    scales = weight.abs().amax(1, keepdim=True).div_(127).clamp_min_(_TINY)
    return (weight / scales).round_().to(torch.int8), scales


def _int4(weight: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """Codes uint8 [out, in], and scale and offset bfloat16 [in / 32, out, 2]: (code - 8) * scale + offset.

    Both sides are filled up with zeros, the outputs to a multiple of `outputs`.
    """
    n, k = weight.shape
    weight = nn.functional.pad(weight, (0, -k % _GROUP, 0, -n % outputs))
    groups = weight.view(weight.shape[0], -1, _GROUP)
    low, high = groups.aminmax(dim=-1, keepdim=True)
    # Codes are chosen for scales as they are kept, so rounding these costs next to nothing.
    scale = ((high - low) / 15).clamp_min_(_TINY).bfloat16()
    offset = (low + 8 * scale.float()).bfloat16()
    codes = ((groups - offset.float()) / scale.float() + 8).round_().clamp_(0, 15).to(torch.uint8)
    return codes.view(weight.shape), torch.cat((scale, offset), -1).transpose(0, 1).contiguous()


@contextlib.contextmanager
def _fbgemm() -> Iterator[None]:
    """Pack for fbgemm: others may be the default, and have no such kernel. Raises RuntimeError without it.

    Tensors that are quantized will go with a future version of torch, and a warning says so (2.13).
    """
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
            yield
    finally:
        torch.backends.quantized.engine = before
