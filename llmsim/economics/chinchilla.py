"""Which loss a model of N parameters reaches after D tokens, and which N and D are best for a number of FLOPs.

L(N, D) = E + A/N^alpha + B/D^beta with C = 6·N·D (Hoffmann et al. 2022, arXiv 2203.15556, section 3.3). The minimum at
fixed C is at N = G·(C/6)^(beta/(alpha+beta)), G = (alpha·A/(beta·B))^(1/(alpha+beta)) (their equation 4). The constants
that the paper prints do not reproduce its own table; the replication's (`besiroglu2024`) do, and are the default.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from llmsim.errors import CatalogueError, UserError, nearest

DEFAULT = "besiroglu2024"
FLOPS_PER_PARAMETER_AND_TOKEN = 6.0


@dataclass(frozen=True, slots=True)
class Law:
    """One fit of the loss. Loss in nats a token."""

    name: str
    E: float
    A: float
    B: float
    alpha: float
    beta: float
    source: str
    warning: str = ""

    def loss(self, parameters: float, tokens: float) -> float:
        """Expected loss of a model of this size after this many tokens."""
        return self.E + self.A / parameters**self.alpha + self.B / tokens**self.beta

    def optimum(self, flops: float) -> tuple[float, float]:
        """(parameters, tokens) of the least loss that 6·N·D = flops allows."""
        work = flops / FLOPS_PER_PARAMETER_AND_TOKEN
        scale = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        parameters = scale * work ** (self.beta / (self.alpha + self.beta))
        return parameters, work / parameters

    def tokens_for(self, parameters: float, loss: float) -> float:
        """Tokens after which a model of this size reaches `loss`.

        Raises `UserError` when it never does: too few parameters, whatever the data.
        """
        left = loss - self.E - self.A / parameters**self.alpha
        if left <= 0:
            floor = self.E + self.A / parameters**self.alpha
            raise UserError(
                f"a model of {parameters:.3g} parameters never reaches loss {loss:.3f}; its limit is {floor:.3f}"
            )
        return (self.B / left) ** (1 / self.beta)


@lru_cache(maxsize=1)
def _table() -> dict:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(files("llmsim.catalogue").joinpath("scaling_laws.yaml").read_text("utf-8"), loader)


def laws() -> list[str]:
    """Names of all fits, the default first."""
    return list(_table()["laws"])


def law(name: str = DEFAULT) -> Law:
    """The fit of this name; raises `CatalogueError` with the nearest known one."""
    known = _table()["laws"]
    if name not in known:
        raise CatalogueError(f"no scaling law named {name!r}{nearest(name, known) or '; known: ' + ', '.join(known)}")
    return Law(name, **known[name])


def published_optima() -> list[tuple[float, float, float]]:
    """(parameters, tokens, FLOP) of Hoffmann et al. 2022, table 3: the optima that they read off their runs."""
    return [tuple(float(value) for value in row) for row in _table()["approach1"]]
