"""The launcher files: taken by Ray's own validation and by KubeRay's schema, safe, and at rest while nobody asks."""

import copy
import gzip
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from referencing import Registry
from referencing.jsonschema import DRAFT202012

ROOT = Path(__file__).parents[2]
LAUNCHERS = ROOT / "cluster" / "launchers"
LOCKS = ROOT / "cluster" / "environments"
ASSETS = Path(__file__).parent / "assets"
CLOUDS = ("aws", "gcp")
TRIAL = {"CPU": 4.0, "GPU": 1.0}  # what cluster.resources asks for a trial on such a node


def cloud(name):
    return yaml.safe_load((LAUNCHERS / f"{name}.yaml").read_text())


def kuberay():
    return list(yaml.safe_load_all((LAUNCHERS / "kuberay.yaml").read_text()))


def accept(config):
    """As `ray up` does before it asks a cloud for anything."""
    ready = prepare_config(copy.deepcopy(config))
    validate_config(ready)
    return ready


def accept_kubernetes(document):
    kubernetes = json.loads(gzip.decompress((ASSETS / "kubernetes-1.37.json.gz").read_bytes()))
    ray = yaml.safe_load((ASSETS / "kuberay-1.7.0.yaml").read_text())
    registry = Registry().with_resources(
        [("kubernetes", DRAFT202012.create_resource(kubernetes)), ("ray", DRAFT202012.create_resource(ray))]
    )
    network = "kubernetes#/$defs/io.k8s.api.networking.v1.NetworkPolicy"
    named = {"RayJob": "ray#/$defs/RayJob", "NetworkPolicy": network}[document["kind"]]
    Draft202012Validator({"$ref": named}, registry=registry).validate(document)


def autoscaled(name):
    """What Ray's autoscaler is told, of whichever launcher."""
    if name in CLOUDS:
        return accept(cloud(name))
    spec = kuberay()[1]["spec"]["rayClusterSpec"]
    return _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "x", "namespace": "y"}, "spec": spec})


def launched(config, demands, unavailable=()):
    """Which nodes the autoscaler starts for `demands` where none runs."""
    told = AutoscalingConfig(copy.deepcopy(config), skip_content_hash=True)
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=told.get_node_type_configs(),
        max_num_nodes=told.get_max_num_nodes() - 1,  # the head is one of them
        resource_requests=ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(one) for one in demands]),
        recoverable_resource_availabilities=dict.fromkeys(unavailable, 0.0),
    )
    reply = ResourceDemandScheduler(None).schedule(request)
    return {one.instance_type: one.count for one in reply.to_launch}


@pytest.mark.parametrize("name", CLOUDS)
def test_ray_takes_the_file(name):
    accept(cloud(name))


@pytest.mark.parametrize("number", [0, 1])
def test_kubernetes_takes_the_file(number):
    accept_kubernetes(kuberay()[number])


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ((), "idle_timeout", 5),
        ((), "head_node_type", "nobody"),
        ((), "max_workers", "4"),
        (("auth",), "ssh_keys", "x"),
        (("available_node_types", "l4"), "min_worker", 0),
        (("available_node_types", "l4"), "min_workers", 9),
        (("available_node_types", "l4", "resources"), "GPU", "one"),
        ((), "initialization_commands", "make setup"),
    ],
)
def test_ray_refuses_a_fault(name, place, key, value):
    config = cloud(name)
    at = config
    for step in place:
        at = at[step]
    at[key] = value
    with pytest.raises((ValidationError, ValueError)):
        accept(config)


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        (("spec",), "entryPoint", "x"),
        (("spec",), "submissionMode", "ByHand"),
        (("spec",), "ttlSecondsAfterFinished", "300"),
        (("spec", "rayClusterSpec"), "autoscaler", {}),
        (("spec", "rayClusterSpec", "authOptions"), "mode", "tokens"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams"), "num-cpus", 0),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0), "minReplica", 0),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "containers", 0), "envfrom", []),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec"), "tolerations", {}),
    ],
)
def test_kubernetes_refuses_a_fault(place, key, value):
    document = kuberay()[1]
    at = document
    for step in place:
        at = at[step]
    at[key] = value
    with pytest.raises(ValidationError):
        accept_kubernetes(document)


@pytest.mark.parametrize("name", [*CLOUDS, "kuberay"])
def test_nodes_with_a_gpu_come_from_nothing_when_trials_ask(name):
    """By Ray's own autoscaler: none at rest, spot for trials, the other kind where spot is not to be had, at most 4."""
    config = autoscaled(name)
    spot, other = ("l4-spot", "l4") if name == "kuberay" else ("l4_spot", "l4")
    assert [one["min_workers"] for one in config["available_node_types"].values()] == [0, 0, 0]
    assert config["idle_timeout_minutes"] == 10
    assert launched(config, []) == {}
    assert launched(config, [TRIAL]) == {spot: 1}
    assert launched(config, [TRIAL | {"accelerator_type:L4": 0.001}] * 2) == {spot: 2}
    assert launched(config, [TRIAL], unavailable=[spot]) == {other: 1}
    assert sum(launched(config, [TRIAL] * 30).values()) == (8 if name == "kuberay" else 4)


@pytest.mark.parametrize("name", [*CLOUDS, "kuberay"])
def test_the_head_has_no_gpu_and_runs_no_trials(name):
    config = autoscaled(name)
    head = config["available_node_types"][config["head_node_type"]]["resources"]
    assert (head.get("CPU", 0), head.get("GPU", 0)) == (0, 0)


def test_spot_and_on_demand_are_both_there():
    aws, gcp = (cloud(name)["available_node_types"] for name in CLOUDS)
    assert aws["l4_spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in aws["l4"]["node_config"]
    assert {aws[kind]["node_config"]["InstanceType"] for kind in ("l4", "l4_spot")} == {"g6.xlarge"}
    assert gcp["l4_spot"]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert gcp["l4"]["node_config"]["scheduling"]["provisioningModel"] == "STANDARD"
    assert {gcp[kind]["node_config"]["machineType"] for kind in ("l4", "l4_spot")} == {"g2-standard-8"}


@pytest.mark.parametrize("name", CLOUDS)
def test_every_ray_of_a_cloud_asks_for_the_token_and_shows_its_dashboard_to_itself(name):
    config = accept(cloud(name))
    head, worker = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]
    assert all("RAY_AUTH_MODE=token ray start" in one and "launchers/node.sh" in one for one in (head, worker))
    assert "--dashboard-host=127.0.0.1" in head and "0.0.0.0" not in json.dumps(config)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert config["file_mounts"]["~/.squeeze-secrets.env"] == "build/secrets.env"
    for commands in ("head_setup_commands", "worker_setup_commands"):
        assert config[commands][0] == "chmod 600 ~/.ray/auth_token ~/.squeeze-secrets.env"


def test_kubernetes_gives_the_token_from_a_secret_and_lets_few_at_the_dashboard():
    policy, job = kuberay()
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "squeeze-token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP" and not cluster["headGroupSpec"]["enableIngress"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert all(one["template"]["metadata"]["labels"] == {"squeeze": "cluster"} for one in groups)
    assert policy["spec"]["podSelector"] == {"matchLabels": {"squeeze": "cluster"}}
    among, others = policy["spec"]["ingress"]
    assert among["from"] == [{"podSelector": {"matchLabels": {"squeeze": "cluster"}}}]
    assert others["ports"] == [{"protocol": "TCP", "port": 8265}] and len(others["from"]) == 2


@pytest.mark.parametrize("path", sorted(LAUNCHERS.iterdir()), ids=lambda path: path.name)
def test_no_secret_is_in_a_file(path):
    """Neither what keys look like, nor a value for a variable that is called like one."""
    text = path.read_text()
    assert not re.findall(
        r"AKIA[0-9A-Z]{12}|hf_[A-Za-z]{20}|sk-[A-Za-z0-9]{16}|\b[0-9a-f]{40,}\b|BEGIN [A-Z ]*KEY", text
    )
    assert not re.findall(
        r"(?i)[A-Z_]*(?:api_?key|secret_?key|password|hf_token|auth_token)\s*[=:]\s*[\"']?[a-z0-9]", text
    )


def test_commands_install_from_locks_that_are_there():
    """install.sh and the image say `make setup contest`, which takes the machine's hashed locks."""
    made = (LAUNCHERS / "install.sh").read_text()
    assert "make -C $place PYTHON=/usr/bin/python3 setup contest" in made
    assert "--no-deps --require-hashes" in made and "pip install ray" not in made
    assert "make DEVICE=gpu PIP_NO_CACHE_DIR=1 setup contest" in (LAUNCHERS / "Dockerfile").read_text()
    for name in CLOUDS:
        config = accept(cloud(name))
        assert config["head_setup_commands"][-1] == f"bash ~/install.sh ~/squeeze.tar.gz {name}"
        assert config["worker_setup_commands"][-1] == "bash ~/install.sh ~/squeeze.tar.gz"
        assert (LOCKS / f"{name}.txt").is_file()
    assert not [word for word in ("pip install", "conda") if word in (LAUNCHERS / "aws.yaml").read_text()]


STANDS_FOR = """#!/bin/sh
case "$*" in
    *ssm*) echo ami-0123 ;;
    *sts*) echo 123456789012 ;;
    *"get-role "*|*get-instance-profile*|*head-bucket*|*"buckets describe"*|*"accounts describe"*) exit 1 ;;
esac
echo "$0 $*" >> "$CALLS"
"""


@pytest.mark.parametrize(("name", "words"), [("aws", ("us-east-1", "b")), ("gcp", ("proj", "us-central1-a", "b"))])
def test_an_account_is_prepared_and_nothing_stays_to_fill_in(name, words, tmp_path):
    """With commands in place of the clouds' own; of a commit, without what is not in it."""
    clone, tools = tmp_path / "clone", tmp_path / "tools"
    shutil.copytree(LAUNCHERS, clone / "cluster" / "launchers")
    tools.mkdir()
    for tool in ("aws", "gcloud"):
        (tools / tool).write_text(STANDS_FOR)
        (tools / tool).chmod(0o755)
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=clone, check=True)
    (clone / "key.txt").write_text("not committed")
    token = tmp_path / "home" / "auth_token"
    given = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}
    made = clone / "build" / f"{name}.yaml"

    def prepare(words):
        return subprocess.run(
            ["bash", f"cluster/launchers/{name}.sh", *words], cwd=clone, check=False, capture_output=True, text=True,
            env=given | {"RAY_AUTH_TOKEN_PATH": str(token), "SQUEEZE_IAM_WAIT": "0"},
        )  # fmt: skip

    assert prepare(words).returncode == 0
    first, edited = token.read_text(), made.read_text().replace("max_workers: 4", "max_workers: 2")
    edited = re.sub(r"(?m)^  region: (.*)$", r'  region: "\1" # mine', edited)
    made.write_text(edited)
    assert prepare(words).returncode == 0  # nothing is made anew
    assert made.read_text() == edited != ""
    elsewhere = prepare([word.replace("us-", "eu-") for word in words])
    assert elsewhere.returncode == 2 and f"ray down build/{name}.yaml" in elsewhere.stderr
    made.write_text(edited.replace(words[0], f"{words[0]}-two"))  # of another that begins alike
    assert prepare(words).returncode == 2
    made.write_text(edited)
    assert token.stat().st_mode & 0o777 == 0o600 and len(first) == 64 and token.read_text() == first
    assert (clone / "build" / "secrets.env").stat().st_mode & 0o777 == 0o600
    text = made.read_text()
    assert text == edited and not re.findall(r"SQUEEZE_[A-Z]+", re.sub(r"(?m)#.*", "", text))
    accept(yaml.safe_load(text))
    packed = subprocess.run(["tar", "tzf", clone / "build" / "squeeze.tar.gz"], capture_output=True, text=True).stdout
    assert "cluster/launchers/install.sh" in packed and "key.txt" not in packed


def test_who_may_do_what_on_aws(tmp_path):
    """The head ends only what a Ray cluster began, and each bucket's rights are a policy of their own."""
    document = (LAUNCHERS / "aws.sh").read_text()
    policies = re.findall(r"(?ms)^(?:data|nodes)='(.*?)'$", document)
    data, nodes = (json.loads("[" + re.sub(r"'\$(\w+)'", r"\1", one) + "]") for one in policies)
    assert {name for one in data for name in one["Resource"].split(":::")[1:]} == {"bucket", "bucket/*"}
    free = {action for one in nodes if "Condition" not in one and one["Resource"] == "*" for action in one["Action"]}
    assert free == {"ec2:Describe*", "ec2:RunInstances"}
    (ends,) = [one for one in nodes if "ec2:TerminateInstances" in one["Action"]]
    assert ends["Condition"] == {"StringLike": {"aws:ResourceTag/ray-cluster-name": "*"}}
    assert '--policy-name "squeeze-$bucket"' in document


def test_the_page_names_what_is_there_and_its_command_fills_in_the_file_for_kubernetes(tmp_path):
    page = (ROOT / "docs" / "cluster.md").read_text()
    for name in re.findall(r"cluster/(?:launchers|environments)/[\w.-]+\w", page):
        assert (ROOT / name).exists(), name
    command = re.search(r"sed -e \"s\|: &image.*?> build/kuberay.yaml", page, re.DOTALL).group()
    shutil.copytree(LAUNCHERS, tmp_path / "cluster" / "launchers")
    (tmp_path / "build").mkdir()
    subprocess.run(["bash", "-c", command.replace("git rev-parse --short HEAD", "echo abc")], cwd=tmp_path, check=True)
    text = (tmp_path / "build" / "kuberay.yaml").read_text()
    assert not re.findall(r"\bIMAGE\b|s3://BUCKET", re.sub(r"(?m)^ *#.*", "", text))
    for document in yaml.safe_load_all(text):
        accept_kubernetes(document)
    assert "image: &image REGISTRY/squeeze:abc" in text
