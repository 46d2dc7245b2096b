"""The principle's protocol for a torch module: transposed Jacobians by torch.func.vjp, deep equilibrium models.

An encoder g, an implicit module and a decoder h [section S6.4.3]. The decoder's output is appended to the state, so
that the loss depends on no parameter [eq. 144]:

    f = [ F(phi, g(x)) - phi ]        dpsi/dt = (df/dphi)^T psi + D^T u      [eq. 145]
        [ h(phi) - y         ]        update  = (df/dtheta)^T psi            [eq. 147]

so the first rows of the state are phi, flattened, and its last rows are y. Modules see [sample, ...]; the state is
[unit, sample] as everywhere. With `decoder_in="loss"` the rows of y are no units of their own: y = h(phi) exactly, and
the update is (df/dtheta)^T psi + (dh/dtheta)^T u [eq. 33, 148].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp

from circuitlab.dynamics.module_checks import check, encoding_of
from circuitlab.dynamics.sweep import JacobiSweep, Sweep
from circuitlab.dynamics.system import Point, System
from circuitlab.errors import CircuitError

FORMS = ("fixed_point", "flow")


def _vjp(function: Callable[..., Any], at: Any) -> tuple[Any, Callable[..., Any]]:
    """A function's value at a point, and the product of its transposed Jacobian with what it is given."""
    found: Any = vjp(function, at)
    return found


class TorchModel(nn.Module):
    """Encoder, implicit module and decoder in one: the parameters that learn, under names such as
    `implicit.conv.weight`.

    Args:
        implicit: (phi, e) -> F(phi, e) or f(phi, e), all [sample, ...].
        decoder: phi -> y, [sample, output unit].
        encoder: x -> e, [sample, ...]; e = x where None.
        flow: whether the implicit module gives f = F - phi.
    """

    def __init__(
        self, implicit: nn.Module, decoder: nn.Module, encoder: nn.Module | None, flow: bool
    ) -> None:
        super().__init__()
        self.encoder = nn.Identity() if encoder is None else encoder
        self.implicit, self.decoder, self.flow = implicit, decoder, flow

    def forward(self, part: str, *given: Tensor) -> Any:
        """One of the parts `encode` (x), `implicit` (phi, e), `decode` (phi), or several: `predict` (phi, e) and
        `whole` (phi, x) give F and h."""
        if part == "encode":
            return self.encoder(*given)
        if part == "decode":
            return self.decoder(*given)
        phi, e = given
        if part == "whole":
            e = self.encoder(e)
        image = self.implicit(phi, e)
        image = phi + image if self.flow else image
        return image if part == "implicit" else (image, self.decoder(phi))

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def parameters_by_name(self) -> dict[str, nn.Parameter]:
        """All parameters by their names; one that several parts share stands once."""
        return dict(self.named_parameters())

    def plastic(self) -> dict[str, nn.Parameter]:
        """The parameters that learning may change."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def state_by_name(self) -> dict[str, Tensor]:
        """All that a checkpoint keeps: parameters, and running statistics."""
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    def enforce_sign(self) -> None:
        """Nothing: parameters of a torch module have no prescribed sign."""


class ModuleSystem(System):
    """A deep equilibrium model seen as a dynamical system; see `circuitlab.module`.

    Modules are used in evaluation mode always, so that a sample's equations are its own: batch normalisation in encoder
    and decoder normalises by its running statistics (`follow` brings them up to date).

    Args:
        implicit: phi [sample, *state_shape], e [sample, ...] -> [sample, *state_shape]; F where phi = F(phi, e) at
            rest, or f = F - phi (`form`).
        decoder: phi -> y, [sample, output unit].
        encoder: x [sample, *input_shape] -> e; e = x where None.
        state_shape, input_shape: of one sample.
        form: `fixed_point`, or `flow` where the implicit module gives f itself.
        decoder_in: `state`, or `loss` [eq. 148].
        tau_ms: time constant of every unit in ms, for real-time solvers.

    Raises:
        CircuitError: the modules do not fit together, couple samples, or are not the same function twice.
    """

    def __init__(
        self,
        implicit: nn.Module,
        decoder: nn.Module,
        encoder: nn.Module | None = None,
        *,
        state_shape: Sequence[int],
        input_shape: Sequence[int],
        form: str = "fixed_point",
        decoder_in: str = "state",
        tau_ms: float = 10.0,
    ) -> None:
        if form not in FORMS:
            raise CircuitError(f"form: no '{form}'; allowed: {', '.join(FORMS)}")
        if decoder_in not in ("state", "loss"):
            raise CircuitError(f"decoder_in: no '{decoder_in}'; allowed: state, loss")
        if not tau_ms > 0:
            raise CircuitError(f"tau_ms: {tau_ms:g} is no time constant; allowed: above 0")
        self.state_shape, self.input_shape = tuple(state_shape), tuple(input_shape)
        self.model = TorchModel(implicit, decoder, encoder, form == "flow")
        self.encoding_shape, self.output_size = check(self.model, self.state_shape, self.input_shape)
        self.hidden, self.input_size = prod(self.state_shape), prod(self.input_shape)
        self.size = self.hidden + self.output_size
        self.output = slice(self.hidden, self.size)
        self.swept = self.swept_back = False
        self.decoder_in_loss = decoder_in == "loss"
        self.tau_ms = float(tau_ms)

    @property
    def tau(self) -> Tensor:
        return torch.full((self.size, 1), self.tau_ms, dtype=self.model.dtype, device=self.model.device)

    @property
    def controlled(self) -> Tensor | None:
        return None

    def _evaluating(self) -> TorchModel:
        """The model in evaluation mode, whatever mode its owner has put a part in since."""
        if any(part.training for part in self.model.modules()):
            self.model.eval()
        return self.model

    def _phi(self, state: Tensor) -> Tensor:
        """phi as modules see it, [sample, *state_shape], from the state or its first rows, [unit, sample]."""
        return state[: self.hidden].t().reshape(state.shape[1], *self.state_shape)

    @staticmethod
    def _rows(image: Tensor, y: Tensor) -> Tensor:
        """What modules give, as rows of the state, [unit, sample]."""
        return torch.cat([image.flatten(1), y], 1).t().contiguous()

    @torch.no_grad()
    def drive(self, x: Tensor) -> Tensor:
        """g(x), [encoding, sample], for x [input unit, sample]."""
        return encoding_of(self._evaluating(), self._x(x)).flatten(1).t().contiguous()

    def _x(self, x: Tensor) -> Tensor:
        return x.t().reshape(x.shape[1], *self.input_shape)

    def _e(self, drive: Tensor) -> Tensor:
        return drive.t().reshape(drive.shape[1], *self.encoding_shape)

    def start(self, drive: Tensor) -> Tensor:
        """Zeros: deep equilibrium models are looked for from silence."""
        return self.silent(drive)

    @torch.no_grad()
    def predict(self, phi: Tensor, drive: Tensor) -> Tensor:
        """F(phi, g(x)) above h(phi), [unit, sample]."""
        return self._rows(*self.model("predict", self._phi(phi), self._e(drive)))

    @torch.no_grad()
    def linearise(self, phi: Tensor, drive: Tensor) -> ModulePoint:
        e = self._e(drive)
        (image, y), back = _vjp(lambda inner: self.model("predict", inner, e), self._phi(phi))
        return ModulePoint(self, self._rows(image, y), back)

    @torch.no_grad()
    def update(self, phi: Tensor, psi: Tensor, x: Tensor, gated: bool = False) -> dict[str, Tensor]:
        """(df/dtheta)^T psi of encoder, implicit module and decoder by one vjp, summed over samples  [eq. 147]; under
        `decoder_in="loss"`, psi holds u in the rows of y  [eq. 148]."""
        if gated:
            raise CircuitError(
                "learn.rule: a torch module does not tell the slope of every unit; allowed: ungated"
            )
        inner, samples = self._phi(phi), self._x(x)
        model = self._evaluating()
        plastic = {name: value.detach() for name, value in model.plastic().items()}
        _, back = _vjp(lambda theta: functional_call(model, theta, ("whole", inner, samples)), plastic)
        (found,) = back(self._credit(psi))
        return found

    def _credit(self, psi: Tensor) -> tuple[Tensor, Tensor]:
        return self._phi(psi), psi[self.output].t()

    def sweep(self, drive: Tensor) -> Sweep:
        return ModuleSweep(self, drive)

    def transport(self, drive: Tensor) -> Sweep:
        return ModuleSweep(self, drive)

    @property
    def follows(self) -> bool:
        """Whether some part keeps running statistics of what it sees."""
        return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in self.model.modules())

    @torch.no_grad()
    def follow(self, phi: Tensor, x: Tensor) -> None:
        """Bring the running statistics of encoder and decoder up to date with a batch: x [input unit, sample] and the
        equilibria that belong to it, [unit, sample]."""
        if x.shape[1] < 2:
            return
        for module, seen in ((self.model.encoder, self._x(x)), (self.model.decoder, self._phi(phi))):
            module.train()
            module(seen)
            module.eval()


class ModuleSweep(JacobiSweep):
    """Passes through a module: the decoder reads what this very pass has made of phi, and its control is the newest."""

    def __init__(self, system: ModuleSystem, drive: Tensor) -> None:
        super().__init__(system, drive)
        self.module, self.e = system, system._e(drive)

    @torch.no_grad()
    def forward(self, phi: Tensor, psi: Tensor | None) -> None:
        module, model, inner = self.module, self.module.model, self.module._phi(phi)
        if psi is None:
            image = model("implicit", inner, self.e)
            self.prediction = module._rows(image, model("decode", image))
            return
        image, self.back = _vjp(lambda state: model("implicit", state, self.e), inner)
        y, self.back_y = _vjp(lambda state: model("decode", state), image + module._phi(psi))
        self.prediction = module._rows(image, y)

    @torch.no_grad()
    def hold(self, phi: Tensor) -> None:
        model, inner = self.module.model, self.module._phi(phi)
        image, self.back = _vjp(lambda state: model("implicit", state, self.e), inner)
        y, self.back_y = _vjp(lambda state: model("decode", state), inner)
        self.prediction = self.module._rows(image, y)

    def outputs(self, psi: Tensor, control: Tensor, potential: Tensor) -> None:
        """Nothing reads y: its rows get no control from other units."""
        output = self.module.output
        control[output] = 0
        potential[output] = self.prediction[output]

    @torch.no_grad()
    def backward(self, psi: Tensor, control: Tensor, potential: Tensor) -> None:
        """(dF/dphi)^T psi + (dh/dphi)^T psi~, with the psi~ of this pass."""
        hidden, output = slice(0, self.module.hidden), self.module.output
        found = self.back(self.module._phi(psi))[0] + self.back_y(control[output].t())[0]
        control[hidden] = found.flatten(1).t()
        torch.add(self.prediction[hidden], control[hidden], out=potential[hidden])


@dataclass(frozen=True, eq=False)
class ModulePoint(Point):
    """A torch module evaluated at phi.

    Args:
        back: (dF/dphi)^T psi + (dh/dphi)^T psi~ from the two, each [sample, ...].
    """

    system: ModuleSystem
    prediction: Tensor
    back: Any

    @torch.no_grad()
    def transported(self, psi: Tensor, controlled_only: bool = True) -> Tensor:
        """(dF/dphi)^T psi + (dh/dphi)^T psi~, [unit, sample]; nothing reads y, so its rows are zero  [eq. 145-146]."""
        (found,) = self.back(self.system._credit(psi))
        out = torch.zeros_like(psi)
        out[: self.system.hidden] = found.flatten(1).t()
        return out
