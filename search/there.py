"""Work on a node of the kind that a search was timed on: the driver's machine may be of another, or have no GPU."""

from __future__ import annotations

from collections.abc import Callable

from cluster.resources import trial_resources
from search.job import Job
from search.joining import fleet_for, start_ray
from search.ledger import Ledger


def verify_there(verify: Callable[[str], str], job: Job, address: str | None, say: Callable[[str], None]) -> str:
    """What `verify` says of the run on a node, which must see it where it is kept: `job.place`.

    Raises `RunFailed` where none is fit.
    """
    import ray
    from ray.exceptions import RayError

    from search.placing import selector

    start_ray(address, job.run)
    try:
        fleet = fleet_for(job, address, Ledger(job.run / "ledger.jsonl").read(), say)
        takes = trial_resources(job.device, fleet.resources(), job.accelerator, job.space.gpus)
        task = ray.remote(num_cpus=takes.pop("CPU"), num_gpus=takes.pop("GPU", 0.0), resources=takes, max_retries=0)
        return str(ray.get(task(verify).options(label_selector=selector(fleet.barred())).remote(job.place)))
    except RayError as fault:
        words = " ".join(str(fault).split())[-300:]
        return f"the node that verified it was lost ({words}): `squeeze resume {job.place}` tries again"
    finally:
        ray.shutdown()
