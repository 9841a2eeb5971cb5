"""From no node with a GPU to one when a trial asks, and back: by Ray's own autoscaler, run for real.

The cloud is Ray's stand-in for one, whose nodes are further Rays on this machine; what it starts is aws.yaml's.
"""

import json

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config

from tests.cluster.own import LAUNCHERS, own_cluster

pytestmark = pytest.mark.alone
HEAD = "f" * 51 + "00000"  # what the stand-in calls its head
TRIAL = """
import json, pathlib, tempfile, time, ray
from cluster.nodes import expected_like
from evaluation.reference import MODEL
from search import joining
from search.job import Job
from search.space_file import load_space
joining.expected_like = lambda report, engine, device: expected_like(report, engine)  # no driver shows a GPU here
run, said = pathlib.Path(tempfile.mkdtemp()), []
(run / "run.json").touch()
job = Job(base=MODEL, base_key="0", run=run, store=run, space=load_space("demo"), device="cuda",
    accelerator="L4", trials=1)
ray.init(address="auto", log_to_driver=False)
def gpus():
    return sorted(node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"])
before = gpus()
fleet = joining.fleet_for(job, "auto", [], lambda text: said.append(text))
until = time.monotonic() + 60
while not ray.available_resources().get("GPU") and time.monotonic() < until:
    time.sleep(0.2)  # asked for while what held the node is being given back, a GPU may bring another node
task = ray.remote(num_cpus=4, num_gpus=1)(lambda: ray.get_runtime_context().get_node_id())
where = ray.get(task.remote(), timeout=60)
node = next(one for one in ray.nodes() if one["NodeID"] == where)
during, until = gpus(), time.monotonic() + 180
while len(gpus()) > 1 and time.monotonic() < until:
    time.sleep(0.2)
print(json.dumps({"said": said, "before": before, "during": during, "after": gpus(), "node": node}), flush=True)
"""


def as_on_aws(place, port):
    """aws.yaml on the stand-in, where a node goes after fifteen seconds of doing nothing."""
    config = prepare_config(yaml.safe_load((LAUNCHERS / "aws.yaml").read_text()))
    kinds = config["available_node_types"]
    kinds["ray.head.default"] = kinds.pop("head")
    for kind in kinds.values():
        kind["node_config"] = {}
        if kind["resources"]["GPU"]:
            kind["resources"]["object_store_memory"] = 80_000_000
    config["provider"] = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "launch_multiple": True,
        "head_node_id": HEAD,
        "gcs_address": f"127.0.0.1:{port}",
    }
    config |= {"head_node_type": "ray.head.default", "file_mounts": {}, "idle_timeout_minutes": 0.25}
    (place / "autoscaling.yaml").write_text(json.dumps(config))
    return [f"--autoscaling-config={place / 'autoscaling.yaml'}", "--num-cpus=0"]


def test_a_node_with_a_gpu_comes_when_a_trial_asks_and_goes_when_it_is_idle():
    stand_in = {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",  # as `ray up` does
        "RAY_CLOUD_INSTANCE_ID": HEAD,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "CUDA_VISIBLE_DEVICES": "0",  # a node may say that it has a GPU
    }
    with own_cluster(as_on_aws, **stand_in) as cluster:
        done = cluster.asked("submit", "--", "python", "-c", TRIAL)
        assert done.returncode == 0, done.stdout
        told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert any("no node with a GPU (L4) is there yet" in text for text in told["said"])
    assert (told["before"], told["after"]) == ([0], [0])
    # how many come is Ray's to say: on a slow machine its autoscaler may start one for what another one gets
    assert set(told["during"]) == {0, 1}
    assert told["node"]["Resources"]["accelerator_type:L4"] == 1
    assert told["node"]["Labels"]["ray.io/accelerator-type"] == "L4"
