"""Files for several tasks: FILE:TASK, merged adapters, messages, and files that contradict themselves."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training import smooth_image

from swinir.cli.main import main
from swinir.image_io.image import read, write
from swinir.models.multitask import JointSwinIR
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.weights.checkpoint import (
    CheckpointError,
    find_checkpoint,
    load_model,
    read_checkpoint,
    read_joint,
    write_checkpoint,
    write_joint,
)
from swinir.weights.multitask import MAX_RANK, MAX_TASKS, JointWeights, split_name, stem
from swinir.weights.switch import JointModel

BASE = NetworkConfig(embed_dim=12, depths=(2,), num_heads=(3,), img_size=16)
CONFIGS = {
    "x2": replace(BASE, upscale=2, upsampler="pixelshuffledirect"),
    "noise": BASE,
    "free": replace(BASE, upscale=4, upsampler="any"),
}
LAYER = "layers.0.residual_group.blocks.0.mlp.fc1"


@pytest.fixture
def joint() -> JointSwinIR:
    network = JointSwinIR(CONFIGS).eval()
    network.adapt(4)
    with torch.no_grad():
        for factor in network.adapter().values():
            factor.normal_(0, 0.1)
    return network


@pytest.fixture
def weights(joint) -> JointWeights:
    """Weights of all tasks; "x2" and "free" share an adapter, "noise" has none."""
    facts = {
        name: {
            "task": "color_dn" if name == "noise" else "lightweight_sr",
            "network": config.to_dict(),
            "step": 7,
            "adapter": None if name == "noise" else "sr",
        }
        for name, config in CONFIGS.items()
    }
    tables = joint.body(), *(joint.ends(name) for name in CONFIGS), joint.adapter()
    body, *ends, adapter = ({name: p.detach().clone() for name, p in table.items()} for table in tables)
    return JointWeights(facts, body, dict(zip(CONFIGS, ends, strict=True)), {"sr": adapter})


@pytest.fixture(params=[".pth", ".safetensors"])
def file(weights, tmp_path, request) -> Path:
    path = tmp_path / f"joint{request.param}"
    write_joint(path, weights)
    return path


def test_a_task_is_loaded_as_an_ordinary_network_with_its_adapter_merged_to_the_same_bits(file, joint):
    for task in ("x2", "free"):
        model = load_model(f"{file}:{task}", device="cpu")
        assert type(model) is SwinIR
        lq = torch.rand(1, 3, 19, 24)
        with torch.no_grad():
            assert torch.equal(model(lq), joint(lq, task)), task
    plain = load_model(f"{file}:noise", device="cpu").state_dict()
    assert torch.equal(plain[f"{LAYER}.weight"], joint.body()[f"{LAYER}.weight"])


def test_selecting_tasks_in_turn_gives_the_networks_that_are_loaded(file):
    models = JointModel(file, device="cpu")
    assert models.tasks == ("x2", "noise", "free")
    lq = torch.rand(1, 3, 19, 24)
    for task in ("x2", "noise", "x2", "free"):
        assert torch.equal(models.select(task)(lq), load_model(f"{file}:{task}", device="cpu")(lq)), task
    with pytest.raises(ValueError, match="no task 'x3'; choose one of x2, noise, free"):
        models.select("x3")


def test_a_task_states_its_facts_and_a_whole_file_is_read_back(file, weights):
    checkpoint = read_checkpoint(f"{file}:x2")
    assert (checkpoint.task, checkpoint.step, checkpoint.network) == ("lightweight_sr", 7, CONFIGS["x2"])
    assert (checkpoint.path, checkpoint.rules) == (file, ())
    found = read_joint(file)
    assert found.facts == weights.facts
    assert found.state().keys() == weights.state().keys()
    assert all(torch.equal(tensor, weights.state()[name]) for name, tensor in found.state().items())


@pytest.mark.parametrize("task", ["", ":x3"])
def test_a_missing_or_wrong_task_is_answered_in_one_line_with_all_tasks(file, task):
    with pytest.raises(CheckpointError, match=r"choose one of .*:x2, .*:noise, .*:free") as caught:
        load_model(f"{file}{task}")
    assert "\n" not in str(caught.value)


def test_a_task_of_a_file_for_one_is_refused(tmp_path):
    path = tmp_path / "one.pth"
    write_checkpoint(path, SwinIR(BASE).state_dict(), BASE)
    with pytest.raises(CheckpointError, match="network of one task; leave out ':x2'"):
        load_model(f"{path}:x2")
    with pytest.raises(CheckpointError, match="not of several"):
        read_joint(path)


def test_colons_in_names_of_files_and_drives_are_no_tasks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a:b.pth", "a", "C:joint.pth"):
        Path(name).touch()
    assert split_name("a:b.pth") == (Path("a:b.pth"), None)
    assert split_name("a:b.pth:x2") == (Path("a:b.pth"), "x2")
    assert split_name("C:joint.pth:x2") == (Path("C:joint.pth"), "x2")
    assert split_name("C:\\models\\none.pth") == (Path("C:\\models\\none.pth"), None)
    assert (stem("C:joint.pth:x2"), stem("a:b.pth")) == ("C:joint_x2", "a:b")
    assert find_checkpoint("a:b.pth:x2") == Path("a:b.pth")


CONTRADICTIONS = {
    "no tasks": (lambda state, facts: facts.clear(), f"0 tasks, where 1 to {MAX_TASKS}"),
    "too many tasks": (lambda state, facts: facts.update({f"t{i}": {} for i in range(MAX_TASKS)}), "259 tasks"),
    "a name with a dot": (lambda state, facts: facts.update({"a.b": {}}), "states a task a.b in another way"),
    "no network": (lambda state, facts: facts.update(x2=3), "states a task x2 in another way"),
    "a foreign task": (lambda state, facts: facts.pop("noise"), "tasks.noise.*belongs to none of its tasks"),
    "an absent adapter": (lambda state, facts: facts["noise"].update(adapter="dn"), "an adapter that it does not hold"),
    "a strange adapter": (lambda state, facts: facts["noise"].update(adapter=[]), "states a task noise in another way"),
    "no partner": (lambda state, facts: state.pop(f"adapters.sr.{LAYER}.b"), "fc1.a, which fits no layer"),
    "no layer": (lambda state, facts: state.update({"adapters.sr.x.a": torch.zeros(4, 4)}), "x.a, which fits no layer"),
    "another shape": (
        lambda state, facts: state.update({f"adapters.sr.{LAYER}.a": torch.zeros(4, 11)}),
        "fits no layer",
    ),
    "a huge rank": (
        lambda state, facts: state.update(
            {
                f"adapters.sr.{LAYER}.a": torch.zeros(MAX_RANK + 1, 12),
                f"adapters.sr.{LAYER}.b": torch.zeros(24, MAX_RANK + 1),
            }
        ),
        f"rank at most {MAX_RANK}",
    ),
    "an infinite factor": (lambda state, facts: state[f"adapters.sr.{LAYER}.a"].fill_(torch.inf), "NaN or infinite"),
    "a huge product": (
        lambda state, facts: [state[f"adapters.sr.{LAYER}.{letter}"].fill_(1e30) for letter in "ab"],
        "fc1.weight has NaN or infinite",
    ),
    "a head in the body": (
        lambda state, facts: state.update({"conv_first.weight": torch.zeros(12, 3, 3, 3)}),
        "conv_first.weight both in its body",
    ),
    "a lacking tail": (lambda state, facts: state.pop("tasks.x2.upsample.0.bias"), "upsample.0.bias"),
    "another network": (lambda state, facts: facts["x2"]["network"].update(embed_dim=24), "embed_dim 24 for 12"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_file_that_contradicts_itself_is_refused_in_one_line(weights, tmp_path, case):
    spoil, message = CONTRADICTIONS[case]
    path, state = tmp_path / "joint.pth", weights.state()
    spoil(state, weights.facts)
    torch.save({"params": state, "tasks": weights.facts}, path)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(f"{path}:x2")
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_those_of_their_tasks_are_not_written(weights, tmp_path):
    del weights.body["norm.weight"]
    with pytest.raises(CheckpointError, match=r"missing: norm.weight"):
        write_joint(tmp_path / "joint.pth", weights)
    assert not list(tmp_path.iterdir())


def test_an_image_is_restored_by_a_task_and_named_after_it(file, tmp_path):
    write(tmp_path / "a.png", smooth_image(20, 24, 0))
    out = tmp_path / "out"
    words = ["restore", str(tmp_path / "a.png"), "-n", f"{file}:noise", "-o", str(out), "--device", "cpu"]
    assert main(words) == 0
    assert f"{file.name}:noise" in (out / "results.jsonl").read_text()
    assert read(out / "a_joint_noise.png").shape == (20, 24, 3)


def test_info_lists_the_tasks_of_a_file_and_describes_one(file, capsys):
    assert main(["info", str(file)]) == 0
    out = capsys.readouterr().out
    assert [line.split()[:4] for line in out.splitlines() if line.startswith(("x2", "noise", "free"))] == [
        ["x2", "lightweight_sr", "sr", "4"],
        ["noise", "color_dn", "none", "none"],
        ["free", "lightweight_sr", "sr", "4"],
    ]
    assert main(["info", f"{file}:x2"]) == 0
    assert "lightweight_sr (stated by the file)" in capsys.readouterr().out
    assert main(["info", f"{file}:x3"]) == 2
    assert "has no task 'x3'; choose one of" in capsys.readouterr().err
