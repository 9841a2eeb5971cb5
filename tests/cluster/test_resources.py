"""What a trial takes, and what the doctor sees."""

import pytest

from cluster.doctor import examine
from cluster.resources import find_device, here, trial_resources, trials_at_once


def test_a_trial_owns_the_device_it_is_timed_on():
    assert trial_resources("cpu", [{"CPU": 2.0}, {"CPU": 8.0}]) == {"CPU": 8.0}
    assert trial_resources("cuda", [{"CPU": 16.0}, {"CPU": 6.0, "GPU": 1.0}]) == {"CPU": 4.0, "GPU": 1.0}
    assert trial_resources("cuda", [{"CPU": 6.0, "GPU": 4.0}]) == {"CPU": 1.5, "GPU": 1.0}


def test_how_many_trials_run_side_by_side():
    nodes = [{"CPU": 16.0}, {"CPU": 10.0, "GPU": 3.0}, {"CPU": 64.0, "GPU": 2.0}]
    assert trials_at_once(trial_resources("cuda", nodes), nodes) == 5
    assert trials_at_once(trial_resources("cpu", [{"CPU": 2.0}]), [{"CPU": 2.0}]) == 1
    assert trials_at_once({"CPU": 8.0}, [{"CPU": 2.0}, {"CPU": 8.0}, {"CPU": 8.0}]) == 2


def test_a_trial_may_take_several_gpus_of_one_node():
    nodes = [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 32.0, "GPU": 8.0}, {"CPU": 16.0, "GPU": 3.0}, {"CPU": 2.0}]
    takes = trial_resources("cuda", nodes, gpus=2)
    assert takes == {"CPU": 8.0, "GPU": 2.0}
    assert trials_at_once(takes, nodes) == 5  # what one node has left over is no use to another's
    kinds = [{"CPU": 8.0, "GPU": 8.0, "accelerator_type:A100": 1.0}, {"CPU": 64.0, "GPU": 2.0}]
    assert trial_resources("cuda", kinds, "A100", 4) == {"CPU": 4.0, "GPU": 4.0, "accelerator_type:A100": 0.001}


def test_on_processors_a_trial_takes_a_machine_whoever_shares_a_model():
    assert trial_resources("cpu", [{"CPU": 2.0}, {"CPU": 8.0}], gpus=4) == {"CPU": 8.0}


@pytest.mark.parametrize(
    ("device", "nodes", "kind", "said"),
    [
        ("cuda", [{"GPU": 2.0}, {"GPU": 1.0}], "", r"4 GPUs of one node \(gpus\), and the best has 2"),
        ("cuda", [{"GPU": 8.0}, {"GPU": 1.0, "accelerator_type:L4": 1.0}], "L4", "4 GPUs of the kind L4 of one node"),
        ("cpu", [{"CPU": 2.0}], "", r"4 processes share a model \(gpus\), each takes a CPU, and the best node has 2"),
    ],
)
def test_where_no_node_has_as_many_the_best_is_told(device, nodes, kind, said):
    with pytest.raises(LookupError, match=said):
        trial_resources(device, nodes, kind, 4)


def test_what_is_here_is_what_this_process_sees(monkeypatch):
    monkeypatch.setattr("cluster.resources.gpu_present", lambda: True)
    for shown, number in (("", 0.0), ("3", 1.0), ("0,5", 2.0), ("GPU-ab12,GPU-cd34,GPU-ef56", 3.0)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
        assert here()["GPU"] == number
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert here()["GPU"] >= 1
    assert here()["CPU"] >= 1


def test_a_cluster_without_the_device_is_refused_not_waited_for():
    with pytest.raises(LookupError, match="no node of the Ray cluster has a GPU"):
        trial_resources("cuda", [{"CPU": 16.0}])


def test_hidden_gpus_are_not_used(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_device() == "cpu"


def test_the_doctor_finds_this_environment_whole(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [one for one in examine() if not one["ok"]] == []


def test_the_doctor_names_what_is_missing(monkeypatch):
    import cluster.doctor

    monkeypatch.setattr(cluster.doctor, "PACKAGES", ("no-such-package",))
    missing = [one for one in examine() if not one["ok"]]
    assert missing[0]["what"] == "no-such-package"
    assert "make setup" in missing[0]["do"]


def test_the_doctor_uses_the_gpu(monkeypatch, tmp_path):
    """A driver that is too old for torch is there all the same; without any, torch says so here."""
    import cluster.doctor

    said = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.161.08  Release Build"
    (tmp_path / "version").write_text(f"{said}  (dvs-builder)\nGCC version: gcc version 12.3.0\n")
    monkeypatch.setattr(cluster.doctor, "DRIVER", tmp_path / "version")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = cluster.doctor._gpu()
    assert not found["ok"] and found["found"].startswith("driver 535.161.08: ") and "580 or later" in found["do"]
    (tmp_path / "version").write_text(said.replace("535.161.08", "580.65.06"))
    assert cluster.doctor._gpu()["do"] == "see the message"
    (tmp_path / "version").write_text(f"{said}\n")
    monkeypatch.setattr(cluster.doctor, "_fault_of", lambda code: "")
    assert cluster.doctor._gpu()["ok"] and cluster.doctor._gpu()["found"] == "driver 535.161.08"


def test_an_engine_is_found_by_its_name(monkeypatch, tmp_path):
    from cluster.engines import find_engine

    assert find_engine("own").vllm is None
    monkeypatch.setenv("SQUEEZE_CONTEST_PYTHON", str(tmp_path))
    assert (find_engine("contest").python, find_engine("contest").vllm) == (str(tmp_path), "0.14.1")
    with pytest.raises(LookupError, match=r"no engine '0\.32\.0'; there are own and contest"):
        find_engine("0.32.0")


def test_trials_ask_for_the_kind_they_are_timed_on():
    nodes = [{"CPU": 16.0}, {"CPU": 8.0, "GPU": 1.0, "accelerator_type:L4": 1.0}, {"CPU": 2.0, "GPU": 2.0}]
    takes = trial_resources("cuda", nodes, "L4")
    assert takes == {"CPU": 4.0, "GPU": 1.0, "accelerator_type:L4": 0.001}
    assert trials_at_once(takes, nodes) == 1
    with pytest.raises(LookupError, match="no node of the Ray cluster has a GPU of the kind H100"):
        trial_resources("cuda", nodes, "H100")
    with pytest.raises(LookupError, match="no node of the Ray cluster has a CPU to give"):
        trial_resources("cpu", [])
