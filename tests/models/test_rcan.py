"""RCAN beside SwinIR: trained by the same trainer, under the names that spandrel knows."""

import numpy as np
import pytest
import torch

from swinir.image_io.image import write
from swinir.inference.restore import restore
from swinir.train.config import TrainConfig
from swinir.train.distributed import Processes
from swinir.train.initialize import build_network, start_from
from swinir.train.trainer import Trainer
from swinir.weights.checkpoint import read_state

pytest.importorskip("spandrel", reason="RCAN comes with spandrel, the extra `baselines`")

SMALL = {"name": "rcan", "n_resgroups": 1, "n_resblocks": 1, "n_feats": 16, "reduction": 4}


def configuration(folder, **options):
    values = {
        "name": "rcan",
        "task": "classical_sr",
        "scale": 2,
        "data": {"train": str(folder), "patch": 8, "batch": 2, "holdout": 1},
        "network": SMALL,
        "schedule": {"iterations": 3},
        "validate_every": 3,
    }
    return TrainConfig.model_validate(values | options)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        write(folder / f"{i}.png", np.random.default_rng(i).integers(0, 256, (40 + i, 36, 3), dtype=np.uint8))
    return folder


def test_rcan_trains_and_its_weights_are_those_that_spandrel_loads(images, tmp_path):
    import spandrel

    trainer = Trainer(configuration(images), tmp_path / "run", processes=Processes(torch.device("cpu")))
    assert trainer.fit()
    loaded = spandrel.ModelLoader(device="cpu").load_from_file(trainer.weights_path)
    assert (loaded.architecture.id, loaded.scale) == ("RCAN", 2)
    x = torch.rand(1, 3, 12, 10)
    with torch.no_grad():
        assert torch.allclose(loaded.model.eval()(x.clone()), trainer.averaged()(x), atol=1e-6)


def test_rcan_starts_from_its_own_weights_and_refuses_others(images, tmp_path):
    first = Trainer(configuration(images), tmp_path / "run", processes=Processes(torch.device("cpu")))
    first.fit()
    config = configuration(images, init={"weights": str(first.weights_path)}, seed=5)
    network = build_network(config)
    start_from(network, config.init)
    expected = read_state(first.weights_path)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.released_state().items())
    wider = configuration(images, network=SMALL | {"n_feats": 8}, init={"weights": str(first.weights_path)})
    with pytest.raises(ValueError, match="not the weights of this RCAN"):
        start_from(build_network(wider), wider.init)


def test_the_subtracted_mean_is_not_trained_and_the_input_is_left_as_it_is(images):
    network, x = build_network(configuration(images)).eval(), torch.rand(1, 3, 9, 7)
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained
    assert not any("mean" in name for name in trained)
    before = x.clone()
    assert restore(network, x).shape == (1, 3, 18, 14)
    assert torch.equal(x, before)


def test_unknown_options_and_networks_are_refused(images):
    with pytest.raises(ValueError, match=r"unknown RCAN option 'depth'; known options: act_mode"):
        build_network(configuration(images, network={"name": "rcan", "depth": 3}))
    with pytest.raises(ValueError, match=r"network\.name must be swinir or rcan, got 'edsr'"):
        configuration(images, network={"name": "edsr"})
