"""Searchers by name. One is added by writing its file and its line here."""

from search.searchers.chance import ByChance
from search.searchers.evolution import Evolution
from search.searchers.gaussian import Gaussian
from search.searchers.grid import InOrder
from search.searchers.mixed import Mixed
from search.searchers.nsga2 import Nsga2
from search.searchers.proposer import Proposer
from search.searchers.tpe import Tpe

SEARCHERS: dict[str, type[Proposer]] = {
    "mixed": Mixed,
    "gp": Gaussian,
    "tpe": Tpe,
    "evolution": Evolution,
    "nsga2": Nsga2,
    "random": ByChance,
    "grid": InOrder,
}
