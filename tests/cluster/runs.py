"""What is seen of a run that is kept in S3 by hosts with disks of their own: from outside, by files alone."""

import json
from collections import Counter
from typing import NamedTuple

import boto3

from tests.storage import BUCKET


class Seen(NamedTuple):
    """What lies in S3 at a time."""

    ledger: list
    built: set  # keys of artifacts that are there whole
    answers: dict  # records by name


class KeptRun:
    """The run at s3://BUCKET/runs/NAME."""

    def __init__(self, name, storage):
        self.uri = f"s3://{BUCKET}/runs/{name}"
        self.folder = f"runs/{name}/"
        self.client = boto3.client(
            "s3", endpoint_url=storage["AWS_ENDPOINT_URL"], region_name=storage["AWS_REGION"],
            aws_access_key_id=storage["AWS_ACCESS_KEY_ID"], aws_secret_access_key=storage["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip

    def names(self, below=""):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=self.folder + below)
        return [one["Key"].removeprefix(self.folder) for page in pages for one in page.get("Contents", [])]

    def read(self, name):
        return self.client.get_object(Bucket=BUCKET, Key=self.folder + name)["Body"].read()

    def ledger(self):
        text = b"".join(self.read(name) for name in self.names("ledger/"))
        return [json.loads(line) for line in text.splitlines()]

    def built(self):
        return {name.split("/")[2] for name in self.names("store/artifacts/") if name.endswith("/provenance.json")}

    def provenances(self):
        """Of all artifacts that are there whole."""
        return [json.loads(self.read(f"store/artifacts/{key}/provenance.json")) for key in self.built()]

    def seen(self):
        records = {name: json.loads(self.read(name))["content"] for name in self.names("answers/")}
        return Seen(self.ledger(), self.built(), records)


def mirror(host):
    """The copy of the run on a host's disk, once there is one."""
    return next(iter(host.disk.glob("cache/*/")), None)


class Diary:
    """What a host's trials did, by the lines in its logs: the last one is what goes on now."""

    def __init__(self, host):
        self.host = host

    def lines(self):
        """Trial and what it did, of each line."""
        run = mirror(self.host)
        paths = sorted(run.glob("logs/t[0-9]*.log")) if run is not None else []
        return [(path.stem, line.split(" ", 2)[2]) for path in paths for line in path.read_text().splitlines()]

    def now(self):
        """The newest line of all: a host has one trial at a time."""
        run = mirror(self.host)
        paths = list(run.glob("logs/t[0-9]*.log")) if run is not None else []
        newest = max(paths, key=lambda path: path.stat().st_mtime_ns, default=None)
        lines = newest.read_text().splitlines() if newest is not None else []
        return (newest.stem, lines[-1].split(" ", 2)[2]) if lines else ("", "")


def builds(hosts):
    """How often each artifact was begun to be built, anywhere."""
    begun = (line for host in hosts for _, line in Diary(host).lines() if ": building " in line)
    return Counter(line.rpartition(" ")[2] for line in begun)


def rungs(events):
    """How often each rung of each trial stands in the ledger."""
    return Counter((event["trial"], event["rung"]) for event in events if event["event"] == "rung")


def asked_once(before, after):
    """Whether no answer was asked again: but for the pass that was under way, whose partner was lost with the host."""
    return all(
        after[name].get(kind, [])[: len(passes) - 1] == passes[:-1]
        for name, record in before.items()
        for kind in ("passes", "fixed")
        if (passes := record.get(kind, []))
    )
