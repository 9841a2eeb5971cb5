"""Schedulers by name. One is added by writing its file and its line here."""

from search.schedulers.judging import Judging
from search.schedulers.promoting import Promoting
from search.schedulers.stopping import Stopping

SCHEDULERS: dict[str, type[Judging]] = {"stopping": Stopping, "promoting": Promoting}
