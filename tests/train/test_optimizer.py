"""Training steps: those of the released training, split or whole, in every precision, and states."""

import copy
import json
import math
import re
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from conftest import DATA
from golden_state import state
from hypothesis import given, settings
from hypothesis import strategies as st
from operations import Operations
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters
from training import CPU, SMALL, configuration, difference, same

from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.train.config import ScheduleConfig
from swinir.train.dataset import own_parts
from swinir.train.distributed import Processes
from swinir.train.initialize import build_network
from swinir.train.optimizer import LEAST_SCALE, Ema, NotFiniteError, Optimization, fused, learning_rate, step_seed

GOLDEN = json.loads((DATA / "train_steps.json").read_text())
MUON = {"name": "muon", "lr": 4e-3}
GAN = {"adversarial": {"num_feat": 4}}
LOSSES = {"l1": {"name": "l1"}, "charbonnier_eps1e-9": {"name": "charbonnier", "epsilon": 1e-9}}


def optimization(device=CPU, **options):
    """A small network's, by default on the CPU."""
    config = configuration("images", **options)
    return Optimization(build_network(config).train(), config, Processes(device))


def batch(seed=0, size=2, dtype=torch.float32):
    """(size, 3, 16, 16) and (size, 3, 32, 32) of random values in [0, 1]."""
    stream = np.random.default_rng(seed)
    return tuple(torch.from_numpy(stream.random((size, 3, side, side))).to(dtype) for side in (16, 32))


def split(pair, parts):
    """A batch in equal parts, as `Optimization.step` takes them."""
    return list(zip(*(tensor.chunk(parts) for tensor in pair), strict=True))


def trained(steps=3, parts=1, batch_size=2, **options):
    """An optimization after some steps on random batches."""
    ours = optimization(accumulate=parts, data={"batch": batch_size}, **options)
    for step in range(steps):
        ours.step(split(batch(step, batch_size), parts), step)
    return ours


def weights(ours):
    return [p.detach().clone() for p in ours.parameters]


# The released training.


@pytest.mark.parametrize("case", LOSSES)
@pytest.mark.parametrize("decay", [0.999, 0.0])
def test_eight_steps_are_those_of_the_released_training(case, decay):
    options = {key: value for key, value in GOLDEN["config"].items() if key not in ("upscale", "in_chans", "img_size")}
    config = configuration(
        "images",
        network={key: float(value) if key == "mlp_ratio" else value for key, value in options.items()},
        optimizer={"lr": 2e-4},
        schedule={"iterations": 8, "milestones": (4, 6)},
        loss=LOSSES[case],
        ema=decay,
        precision="fp64",
    )
    assert config.network_config() == NetworkConfig.from_dict(GOLDEN["config"])
    network = SwinIR(config.network_config())
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    values = {name: torch.from_numpy(array) for name, array in state(shapes, GOLDEN["seed"]).items()}
    network.load_state_dict(values, strict=False)
    ours = Optimization(network.train(), config, Processes(CPU))
    expected = GOLDEN["cases"][case]
    stream = np.random.default_rng(11)
    for step, golden in enumerate(expected["steps"]):
        lq, gt = (torch.from_numpy(stream.random((2, 3, side, side))) for side in (16, 32))
        result = ours.step([(lq, gt)], step)
        assert result.loss == pytest.approx(golden["loss"], rel=1e-9)
        assert result.grad_norm == pytest.approx(golden["grad_norm"], rel=1e-9)
        assert result.lr == pytest.approx(expected["lr"][step], rel=1e-12)
        assert result.parts == {}

    x = torch.from_numpy(stream.random((1, 3, 16, 16)))
    network.eval()
    with torch.no_grad():
        output = network(x)
        for name, parameter in network.named_parameters():
            parameter.copy_(ours.ema.averages[name])
        averaged = network(x)
    assert output.mean().item() == pytest.approx(expected["final_output_mean"], abs=1e-9)
    assert output.std().item() == pytest.approx(expected["final_output_std"], abs=1e-9)
    corner = output[0, :, :2, :2].flatten().tolist()
    assert corner == pytest.approx(expected["final_output_corner"], abs=1e-9)
    if decay:
        assert averaged[0, :, :2, :2].flatten().tolist() == pytest.approx(expected["ema_output_corner"], abs=1e-9)
    else:
        assert torch.equal(averaged, output)


# Averages.


@given(st.floats(0, 0.999), st.integers(1, 10))
@settings(max_examples=20, deadline=None)
def test_averages_follow_their_closed_form(decay, steps):
    layer = torch.nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.fill_(1)
    ema = Ema(layer, decay)
    with torch.no_grad():
        layer.weight.fill_(3)
    for _ in range(steps):
        ema.update(layer)
    assert ema.averages["weight"].item() == pytest.approx(3 - 2 * decay**steps, rel=1e-12)
    assert layer.weight.item() == 3
    with pytest.raises(ValueError, match="another network"):
        ema.load({"bias": torch.zeros(1)})


def test_the_averaged_network_is_a_copy_for_inference():
    ours = trained(precision="fp64")
    before, averaged = weights(ours), ours.averaged()
    assert all(torch.equal(p, ours.ema.averages[name].float()) for name, p in averaged.named_parameters())
    assert same(before, weights(ours))
    assert (averaged.training, ours.network.training) == (False, True)
    assert not any(p.requires_grad for p in averaged.parameters())
    assert all(p.requires_grad for p in ours.network.parameters())


# Parts.


@pytest.mark.parametrize(("parts", "rate"), [(2, 0.0), (4, 0.3)])
def test_a_batch_run_in_parts_gives_the_weights_of_the_whole(parts, rate):
    options = {"network": SMALL | {"drop_path_rate": rate}, "precision": "fp64", "batch_size": 4}
    whole, split_up = trained(**options), trained(parts=parts, **options)
    assert difference(whole.network, split_up.network) < 1e-11
    assert difference(whole.network, trained(0, **options).network) > 1e-3
    ours, theirs = (o.step(split(batch(3, 4), n), 3) for o, n in ((whole, 1), (split_up, parts)))
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-10)
    assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-9)


def test_every_process_has_parts_of_its_own_and_none_is_left_out():
    config = configuration("images", accumulate=3, data={"batch": 6})
    parts = [[(p.index, p.count) for p in own_parts(config, Processes(CPU, rank, 2))] for rank in range(2)]
    assert parts == [[(0, 6), (2, 6), (4, 6)], [(1, 6), (3, 6), (5, 6)]]


def test_the_draws_of_a_step_depend_on_seed_and_step_alone():
    seeds = [step_seed(seed, step) for seed in range(10) for step in range(100)]
    assert len(set(seeds)) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    torch.manual_seed(1)
    one = trained(network=SMALL | {"drop_path_rate": 0.5})
    torch.manual_seed(2)
    assert difference(one.network, trained(network=SMALL | {"drop_path_rate": 0.5}).network) == 0


# What is not finite.


@pytest.mark.parametrize(
    ("precision", "which", "bad"), [("fp32", 0, math.nan), ("fp32", 1, math.inf), ("fp16", 0, math.inf)]
)
def test_a_loss_that_is_not_finite_stops_before_any_weight_moves(precision, which, bad):
    ours = trained(1, parts=2, precision=precision)
    before = copy.deepcopy([ours.state()[name] for name in ("network", "averages", "optimizer")])
    pair = batch(1)
    pair[which][0, 0, 3, 3] = bad  # in one of two parts
    with pytest.raises(NotFiniteError, match=r"^not finite: loss (nan|inf); lower optimizer\.lr or set") as caught:
        ours.step(split(pair, 2), 1)
    assert same(before, [ours.state()[name] for name in ("network", "averages", "optimizer")])
    for number, tensors in enumerate(zip(*caught.value.batch, strict=True)):
        assert torch.equal(torch.cat(tensors).nan_to_num(7), pair[number].nan_to_num(7))


def test_a_gradient_that_is_not_finite_stops_before_any_weight_moves():
    ours = optimization()
    before = weights(ours)
    ours.parameters[0].register_hook(lambda grad: grad * math.inf)
    with pytest.raises(NotFiniteError, match=r"^not finite: gradient (nan|inf); lower optimizer\.lr"):
        ours.step([batch()], 0)
    assert same(before, weights(ours))


# Half precision.


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        ("adam", "conv_first.weight"),
        ("muon", "conv_first.weight"),
        ("muon", "layers.0.residual_group.blocks.0.mlp.fc1.weight"),
    ],
)
def test_an_overflowing_gradient_of_half_precision_skips_all_optimizers_and_lowers_the_scale(optimizer, name):
    ours = trained(1, precision="fp16", ema=0.5, optimizer={"name": optimizer})
    scale, parts = ours.scaler.get_scale(), ("network", "averages", "optimizer", "muon")
    before = copy.deepcopy([ours.state()[part] for part in parts])
    handle = ours.network.get_parameter(name).register_hook(lambda grad: grad * math.inf)
    result = ours.step([batch(1)], 1)
    assert not math.isfinite(result.grad_norm)
    assert math.isfinite(result.loss)
    for part, value in zip(parts, before, strict=True):
        state = ours.state()[part]
        groups = {"param_groups"}  # learning rates follow the schedule
        keys = (state or {}).keys() - groups
        assert all(same(state[key], value[key]) for key in keys), part
    assert ours.scaler.get_scale() == scale / 2
    handle.remove()
    start = weights(ours)
    assert math.isfinite(ours.step([batch(1)], 2).grad_norm)
    assert not any(torch.equal(a, b) for a, b in zip(start, weights(ours), strict=True))


def test_gradients_that_overflow_however_small_the_scale_are_the_networks_own():
    ours = optimization(precision="fp16")
    ours.parameters[0].register_hook(lambda grad: grad * math.inf)
    scales = []
    while ours.scaler.get_scale() >= LEAST_SCALE:
        ours.step([batch()], 0)
        scales.append(ours.scaler.get_scale())
    assert 10 < len(scales) < 60
    with pytest.raises(NotFiniteError, match="not finite: gradient"):
        ours.step([batch()], 0)


@pytest.mark.parametrize(("precision", "within"), [("bf16", 0.02), ("fp16", 0.002)])
def test_half_precision_has_nearly_the_gradient_of_float32(precision, within):
    results = [optimization(precision=p).step([batch()], 0) for p in ("fp32", precision)]
    assert results[0].loss == pytest.approx(results[1].loss, rel=within)
    assert results[0].grad_norm == pytest.approx(results[1].grad_norm, rel=5 * within)
    assert results[0].grad_norm != results[1].grad_norm


@pytest.mark.parametrize("precision", ["bf16", "fp64"])
def test_parameters_stay_in_their_precision(precision):
    ours = trained(1, precision=precision)
    assert {p.dtype for p in ours.parameters} == {torch.float64 if precision == "fp64" else torch.float32}
    assert {p.dtype for p in ours.ema.averages.values()} == {p.dtype for p in ours.parameters}


# Work for the device.


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": MUON | {"clip_norm": 1e-3}, "loss": GAN},
        {"precision": "fp16", "network": SMALL | {"drop_path_rate": 0.3}},
    ],
    ids=["muon", "fp16"],
)
def test_a_step_waits_for_the_device_once(monkeypatch, options):
    monkeypatch.setattr("swinir.train.optimizer.fused", lambda device: True)  # as on a GPU
    ours, lists, read = optimization(accumulate=2, **options), [], torch.Tensor.tolist
    if ours.objective.adversary:  # its plain Adam reads counts of steps, which are on the CPU
        monkeypatch.setattr(ours.objective.adversary.optimizer, "step", lambda: None)
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: lists.append(1) or read(tensor))
    with Operations() as operations:
        ours.step(split(batch(), 2), 0)
    assert len(lists) + operations.names.count("aten._local_scalar_dense.default") == 1


def test_attention_in_training_is_explicit_products():
    """cuDNN's gradient of scaled_dot_product_attention is NaN for some windows of 64 tokens."""
    ours = optimization(precision="bf16")
    with Operations() as operations:
        ours.step([batch()], 0)
    assert not [name for name in operations.names if "attention" in name]
    assert [name for name in operations.names if "softmax_backward" in name]


def test_fused_adam_takes_the_state_of_the_plain_one_and_gives_it_back(monkeypatch):
    plain = trained()
    monkeypatch.setattr("swinir.train.optimizer.fused", lambda device: True)
    fused = optimization()
    fused.load_state(copy.deepcopy(plain.state()))
    assert fused.optimizer.param_groups[0]["fused"]
    assert same(fused.state()["optimizer"]["state"], plain.state()["optimizer"]["state"])
    for ours in (plain, fused):
        ours.step([batch(3)], 3)
    assert difference(plain.network, trained().network) > 0
    assert difference(plain.network, fused.network) < 1e-7
    plain.load_state(fused.state())
    assert plain.optimizer.param_groups[0]["fused"] is None
    assert same(fused.state()["optimizer"]["state"], plain.state()["optimizer"]["state"])


def test_fused_adam_is_for_cuda():
    assert [fused(torch.device(name)) for name in ("cuda", "cuda:1", "cpu", "mps")] == [True, True, None, None]


# Options.


def test_clipping_limits_the_norm_of_the_gradient_and_reports_the_one_before():
    free, clipped = optimization(), optimization(optimizer={"clip_norm": 1e-3})
    norms = [ours.step([batch()], 0).grad_norm for ours in (free, clipped)]
    assert norms[0] == norms[1] > 1e-3
    assert math.sqrt(sum(p.grad.square().sum().item() for p in clipped.parameters)) == pytest.approx(1e-3, rel=2e-3)
    grads = [torch.cat([p.grad.flatten() for p in ours.parameters]) for ours in (free, clipped)]
    assert torch.nn.functional.cosine_similarity(*grads, dim=0).item() == pytest.approx(1, abs=1e-6)
    assert difference(trained().network, trained(optimizer={"lr": 2e-3, "clip_norm": 1e6}).network) == 0


def test_weight_decay_and_betas_are_adams():
    options = {"lr": 1e-3, "weight_decay": 0.1, "betas": (0.5, 0.9)}
    ours = optimization(optimizer=options, precision="fp64")
    theirs = build_network(ours.config).double().train()
    adam = torch.optim.Adam(theirs.parameters(), **options)
    for step in range(3):
        lq, gt = batch(step, dtype=torch.float64)
        ours.step([(lq, gt)], step)
        adam.zero_grad()
        (theirs(lq) - gt).abs().mean().backward()
        adam.step()
    assert difference(ours.network, theirs) < 1e-12


def test_muon_steps_the_linear_layers_and_adam_the_rest_as_pytorchs_do_by_hand():
    schedule = ScheduleConfig(iterations=8, warmup=2, kind="cosine", final=0.1)
    options = {"name": "muon", "lr": 4e-3, "rest_lr": 5e-4, "weight_decay": 0.1, "betas": (0.8, 0.9)}
    ours = optimization(
        optimizer=options | {"clip_norm": 1e-3}, schedule=schedule.model_dump(), precision="fp64", ema=0.0
    )
    theirs = build_network(ours.config).double().train()
    linear = re.compile(r"\.(attn\.(qkv|proj)|mlp\.fc[12])\.weight$")
    matrices = [p for name, p in theirs.named_parameters() if linear.search(name)]
    rest = [p for name, p in theirs.named_parameters() if not linear.search(name)]
    assert len(matrices) == 2 * 4  # two layers of four
    assert any(p.ndim == 2 for p in rest)  # the relative position bias tables
    muon = torch.optim.Muon(matrices, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.Adam(rest, betas=(0.8, 0.9))
    for step in range(6):
        lq, gt = batch(step, dtype=torch.float64)
        result = ours.step([(lq, gt)], step)
        for optimizer, lr in ((muon, 4e-3), (adam, 5e-4)):
            optimizer.param_groups[0]["lr"] = learning_rate(schedule, lr, step)
            optimizer.zero_grad()
        assert result.lr == muon.param_groups[0]["lr"]
        (theirs(lq) - gt).abs().mean().backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1e-3)
        muon.step()
        adam.step()
    assert difference(ours.network, theirs) < 1e-12
    assert difference(ours.network, optimization(precision="fp64").network) > 1e-3


def test_channels_last_gives_the_same_weights():
    options = {"precision": "fp64"}
    assert difference(trained(**options).network, trained(channels_last=True, **options).network) < 1e-9


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_recomputing_activations_gives_the_same_weights(rate):
    network = SMALL | {"drop_path_rate": rate}
    kept, recomputed = (trained(network=network | {"use_checkpoint": flag}) for flag in (False, True))
    assert difference(kept.network, recomputed.network) == 0


# Compilation.


@pytest.fixture
def graphs(monkeypatch):
    """Graphs that are compiled, with a backend that runs them as they are."""
    torch._dynamo.reset()
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    yield counter
    torch._dynamo.reset()


FOUR = SMALL | {"depths": [4]}  # layers
DROPPED = {"drop_path_rate": 0.3, "use_checkpoint": True}


@pytest.mark.slow
def test_three_graphs_serve_layers_that_drop_branches_whatever_the_rate_and_the_part(graphs):
    options = {"network": FOUR | DROPPED, "precision": "bf16", "loss": GAN, "parts": 2, "steps": 2}
    compiled = trained(compile=True, **options)
    assert graphs.frame_count == 3  # plain and shifted, and the first layer, which never drops
    assert same(compiled.state(), trained(**options).state())


@pytest.mark.slow
def test_a_second_size_of_patches_adds_two_graphs_and_a_third_size_none(graphs):
    ours, counts = optimization(compile=True), []
    for step, side in enumerate((16, 24, 32)):
        ours.step([(torch.rand(1, 3, side, side), torch.rand(1, 3, 2 * side, 2 * side))], step)
        counts.append(graphs.frame_count)
    assert counts == [2, 4, 4]


def test_two_graphs_serve_all_layers_and_the_averaged_network_is_not_compiled(graphs):
    ours, image = optimization(compile=True, network=FOUR), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        ours.averaged()(image)
        assert graphs.frame_count == 0
        ours.network(image)
        assert graphs.frame_count == 2


def test_a_limit_on_graphs_that_is_reached_is_said_and_training_goes_on_as_without(graphs, caplog):
    with torch._dynamo.config.patch(recompile_limit=1):
        compiled = trained(1, compile=True)
    (message,) = (r.message for r in caplog.records if r.name.startswith("swinir"))
    assert message == "compile: a layer needs more than 1 graphs; training goes on without compilation"
    assert graphs.frame_count == 1
    assert same(compiled.state(), trained(1).state())


@pytest.mark.slow
def test_a_compiled_network_trains_as_the_plain_one_does():
    options = {"network": SMALL | {"depths": [1]}, "precision": "fp64"}
    plain, compiled = trained(2, **options), trained(2, compile=True, **options)
    assert difference(plain.network, compiled.network) < 1e-9


# Two losses more.


ADVERSARIAL = {"adversarial": {"num_feat": 4, "weight": 0.1, "lr": 1e-3}}


def test_the_seed_decides_the_discriminator_and_the_global_generator_stays():
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(optimization(loss=ADVERSARIAL).objective.adversary.discriminator.state_dict())
        assert torch.equal(before, torch.get_rng_state())
    assert same(*found)


def test_the_discriminator_learns_by_the_same_schedule_and_its_losses_are_reported():
    ours = optimization(loss=ADVERSARIAL, schedule={"warmup": 4})
    before = [p.detach().clone() for p in ours.objective.adversary.discriminator.parameters()]
    result = ours.step([batch()], 0)
    (group,) = ours.objective.adversary.optimizer.param_groups
    assert (result.lr, group["lr"]) == (2e-3 / 4, 1e-3 / 4)
    assert set(result.parts) == {"pixel", "adversarial", "discriminator"}
    assert result.loss == pytest.approx(result.parts["pixel"] + 0.1 * result.parts["adversarial"], rel=1e-6)
    after = list(ours.objective.adversary.discriminator.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_discriminators_loss_does_not_move_the_network():
    fooled = optimization(loss={"adversarial": {"num_feat": 4, "weight": 0.0}})
    alone = optimization()
    for ours in (fooled, alone):
        ours.step([batch()], 0)
    assert difference(fooled.network, alone.network) < 1e-9


# States.


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "fp64", "optimizer": {"weight_decay": 0.1}},
        {"loss": ADVERSARIAL, "precision": "fp16"},
        {"channels_last": True},
        {"optimizer": MUON | {"weight_decay": 0.1}, "precision": "fp16"},
    ],
    ids=["fp64", "adversarial", "channels_last", "muon"],
)
def test_a_state_goes_on_as_if_nothing_had_happened(options):
    network = SMALL | {"drop_path_rate": 0.2}
    whole, first = (optimization(network=network, **options) for _ in range(2))
    for step in range(4):
        whole.step([batch(step)], step)
    for step in range(2):
        first.step([batch(step)], step)
    second = optimization(network=network, **options)
    second.load_state(first.state())
    for step in range(2, 4):
        second.step([batch(step)], step)
    ours, theirs = whole.state(), second.state()
    for name in ours:
        assert same(ours[name], theirs[name]), name


def test_a_state_does_not_bring_back_the_optimizers_former_options():
    former = trained(optimizer=MUON | {"weight_decay": 0.1})
    ours = optimization(optimizer=MUON | {"lr": 1e-3, "rest_lr": 1e-4, "betas": (0.8, 0.9)})
    ours.load_state(former.state())
    assert [o.param_groups[0]["lr"] for o in (ours.muon, ours.optimizer)] == [1e-3, 1e-4]
    assert ours.muon.param_groups[0]["weight_decay"] == 0
    assert ours.optimizer.param_groups[0]["betas"] == (0.8, 0.9)
    for name in ("muon", "optimizer"):
        assert same(former.state()[name]["state"], ours.state()[name]["state"])


@pytest.mark.parametrize(("before", "after"), [("fp32", "fp16"), ("fp16", "fp64"), ("fp64", "fp32")])
def test_a_run_may_go_on_in_another_precision(before, after):
    former, ours = trained(precision=before), optimization(precision=after)
    ours.load_state(former.state())
    assert difference(former.network, ours.network) < 1e-6
    assert math.isfinite(ours.step([batch(3)], 3).loss)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({"optimizer": {"lr": 2e-3}}, {"optimizer": MUON}, r"differ in optimizer\.name"),
        ({"optimizer": MUON}, {"optimizer": {"lr": 2e-3}}, r"differ in optimizer\.name"),
        ({"network": SMALL | {"embed_dim": 8}}, {}, "belongs to another network"),
        ({}, {"loss": ADVERSARIAL}, r"differ in loss\.adversarial"),
    ],
)
def test_the_state_of_another_training_is_refused_before_anything_changes(before, after, message):
    former, ours = trained(1, **before), optimization(**after)
    start = weights(ours)
    with pytest.raises(ValueError, match=message):
        ours.load_state(former.state())
    assert same(start, weights(ours))


def test_a_state_from_before_there_was_a_choice_of_optimizers_is_adams():
    former, ours = trained(), optimization()
    ours.load_state({name: value for name, value in former.state().items() if name != "muon"})
    assert same(ours.state(), former.state() | {"scaler": ours.state()["scaler"]})


# On a GPU.

GPU = torch.device("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", [{"lr": 2e-3}, MUON | {"clip_norm": 1e-3}], ids=["adam", "muon"])
def test_steps_on_a_gpu_are_those_on_the_cpu(optimizer, cuda):
    options = {"precision": "fp64", "optimizer": optimizer, "network": SMALL | {"use_checkpoint": True}}
    ours, theirs = trained(device=cuda, **options), trained(**options)
    # Muon multiplies in bfloat16: of steps of up to 5e-3, three percent each may differ (beside float32, on the CPU).
    within = 5e-4 if "name" in optimizer else 1e-9
    for name in ("network", "averages"):
        found, expected = ours.state()[name], theirs.state()[name]
        assert max((found[key].cpu() - expected[key]).abs().max().item() for key in expected) < within, name


@pytest.mark.gpu
def test_fused_adam_on_a_gpu_takes_the_plain_ones_steps(monkeypatch):
    ours = trained(device=GPU, precision="fp64")
    assert ours.optimizer.param_groups[0]["fused"]
    monkeypatch.setattr("swinir.train.optimizer.fused", lambda device: None)
    assert difference(ours.network, trained(device=GPU, precision="fp64").network) < 1e-9


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "within"), [("bf16", 0.02), ("fp16", 0.002)])
def test_half_precision_on_a_gpu_has_nearly_the_gradient_of_float32(precision, within, cuda):
    results = [optimization(cuda, precision=p).step([batch()], 0) for p in ("fp32", precision)]
    assert results[0].loss == pytest.approx(results[1].loss, rel=within)
    assert results[0].grad_norm == pytest.approx(results[1].grad_norm, rel=5 * within)
    assert results[0].grad_norm != results[1].grad_norm


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_step_on_a_gpu_waits_for_it_once(precision):
    network = SMALL | {"drop_path_rate": 0.3}
    ours = optimization(GPU, precision=precision, network=network, optimizer=MUON | {"clip_norm": 1e-3})
    pair = tuple(tensor.to(GPU) for tensor in batch())
    ours.step([pair], 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            ours.step([pair], 1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert len([w for w in caught if "synchronizing" in str(w.message)]) == 1


@pytest.mark.gpu
def test_layers_compiled_for_a_gpu_train_as_the_plain_ones_do():
    torch._dynamo.reset()
    counters.clear()
    options = {"device": GPU, "network": SMALL | {"depths": [4]}, "precision": "bf16"}
    plain, compiled = trained(2, **options), trained(2, compile=True, **options)
    assert counters["stats"]["unique_graphs"] == 2
    assert counters["inductor"]["fuse_attention"] == 0  # its gradient is NaN for some windows
    results = [ours.step([batch(2)], 2) for ours in (plain, compiled)]
    assert results[1].loss == pytest.approx(results[0].loss, rel=0.02)
    assert results[1].grad_norm == pytest.approx(results[0].grad_norm, rel=0.1)


# Schedules.


def test_milestones_halve_the_learning_rate_as_pytorchs_scheduler_does():
    schedule = ScheduleConfig(iterations=12, milestones=(3, 7, 8), gamma=0.5)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-4)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 7, 8], 0.5)
    for step in range(12):
        assert learning_rate(schedule, 2e-4, step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        theirs.step()


def test_a_cosine_goes_from_the_first_rate_to_the_last_after_a_linear_warm_up():
    schedule = ScheduleConfig(iterations=110, warmup=10, kind="cosine", final=0.1)
    half = math.sqrt(0.5)
    rates = [learning_rate(schedule, 1.0, step) for step in (0, 4, 9, 10, 35, 60, 85, 110)]
    assert rates == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.55 + 0.45 * half, 0.55, 0.55 - 0.45 * half, 0.1])
    for short in ({"iterations": 1}, {"iterations": 5, "warmup": 5}, {"iterations": 5, "warmup": 10}):
        for kind in ("multistep", "cosine"):
            schedule = ScheduleConfig(kind=kind, **short)
            assert all(0 < learning_rate(schedule, 1.0, step) <= 1 for step in range(short["iterations"]))
