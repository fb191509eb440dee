"""Records of a run: rows, log, facts, TensorBoard."""

import json
import logging
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from training import configuration, cpu_trainer, rows, train

from swinir.environment import commit, source_tree
from swinir.train.config import TrainConfig
from swinir.train.initialize import build_network
from swinir.train.logger import Journal, add_facts
from swinir.version import __version__
from swinir.weights.checkpoint import write_checkpoint
from swinir.weights.verify import sha256

logger = logging.getLogger("swinir.train.nonsense")


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "deep" / "run")
    yield journal
    journal.close()


def text_of(journal):
    return (journal.folder / "metrics.jsonl").read_text()


# Rows.


def test_rows_are_appended_one_a_line_and_shown(tmp_path):
    shown = []
    for number in range(2):
        journal = Journal(tmp_path, log=shown.append)
        journal.write({"step": number, "loss": 0.1 + 0.2})
        journal.close()
    assert rows(tmp_path) == shown == [{"step": 0, "loss": 0.1 + 0.2}, {"step": 1, "loss": 0.1 + 0.2}]


@pytest.mark.parametrize(("step", "kept"), [(0, []), (7, [4, 6]), (99, [4, 6, 8])])
def test_rows_of_later_steps_are_forgotten(journal, step, kept):
    journal.forget_after(0)  # there are none yet
    assert not (journal.folder / "metrics.jsonl").exists()
    for number in (4, 6, 8):
        journal.write({"step": number})
    journal.forget_after(step)
    assert [row["step"] for row in rows(journal.folder)] == kept
    journal.write({"step": 10})
    assert [row["step"] for row in rows(journal.folder)] == [*kept, 10]


@pytest.mark.parametrize(
    "rest", ['{"step": 6, "lo', '{"step": 6', "{", '{"step": 6, "loss": 1}\n{"st', "\0\0\0"], ids=repr
)
def test_a_last_line_that_was_cut_short_is_dropped(journal, rest):
    journal.write({"step": 4})
    whole = text_of(journal)
    (journal.folder / "metrics.jsonl").write_text(whole + rest)
    journal.forget_after(5)
    assert text_of(journal) == whole


# The log.


def test_the_log_gets_warnings_until_the_run_ends_and_no_longer(journal):
    logger.warning("something %s", "odd")
    journal.close()
    logger.warning("too late")
    (line,) = (journal.folder / "train.log").read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ WARNING something odd", line)


def test_a_failed_validation_stands_in_the_log(images, tmp_path):
    trainer = cpu_trainer(configuration(images), tmp_path / "run")
    trainer.validation.samples[0].gt.write_bytes(b"")
    trainer.fit()
    lines = (tmp_path / "run" / "train.log").read_text().splitlines()
    assert len(lines) == 2
    assert all("the file is empty" in line for line in lines)


def test_a_run_that_fails_lets_go_of_the_log(images, tmp_path, monkeypatch):
    handlers = list(logging.getLogger("swinir").handlers)
    trainer = cpu_trainer(configuration(images), tmp_path / "run")
    monkeypatch.setattr(trainer, "train_on", lambda batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.fit()
    assert logging.getLogger("swinir").handlers == handlers


# Facts.


def test_the_folder_tells_what_the_run_was_made_with(images, tmp_path):
    other = build_network(configuration(images, seed=9))
    write_checkpoint(tmp_path / "other.pth", other.state_dict(), other.config)
    config = configuration(images, init={"weights": str(tmp_path / "other.pth")})
    train(config, tmp_path / "run")
    assert TrainConfig.model_validate_json((tmp_path / "run" / "config.json").read_text()) == config
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (facts["swinir"], facts["torch"], facts["numpy"]) == (__version__, torch.__version__, np.__version__)
    assert (facts["device"], facts["processes"]) == ("cpu", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", facts["started"])
    assert facts["init"] == {"weights": "other.pth", "sha256": sha256(tmp_path / "other.pth"), "fresh": []}
    data = facts["data"]
    assert (data["images"], data["held_out"]) == (4, ["c.png"])
    assert data["megapixels"] == pytest.approx(0.014, abs=0.001)
    assert re.fullmatch("[0-9a-f]{64}", data["index_sha256"])


def test_the_commit_is_that_of_the_source_tree_and_none_without_git(monkeypatch):
    words = ["git", "rev-parse", "HEAD"]
    found, done = commit(), subprocess.run(words, cwd=source_tree(), capture_output=True, text=True, check=False)
    assert (found is None) == (done.returncode != 0)
    assert done.stdout.startswith((found or "").removesuffix("-dirty"))
    monkeypatch.setenv("PATH", "")
    assert commit() is None


# TensorBoard.


def test_without_tensorboard_the_wish_for_it_is_refused_in_one_line(images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    before = list(logging.getLogger("swinir").handlers)
    trainer = cpu_trainer(configuration(images, tensorboard=True), tmp_path / "run")
    with pytest.raises(ValueError, match=r"needs TensorBoard; install it with: pip install 'swinir.*\[tensorboard\]'$"):
        trainer.fit()
    assert logging.getLogger("swinir").handlers == before


def test_tensorboards_events_hold_every_number_and_the_validation_images(images, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(configuration(images, tensorboard=True), tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    found = {(name, e.step): e.value for name in events.Tags()["scalars"] for e in events.Scalars(name)}
    numbers = {(name, row["step"]): v for row in rows(tmp_path / "run") for name, v in row.items() if name != "step"}
    assert found == pytest.approx(numbers, rel=1e-6)
    shown = events.Images("c.png")
    assert [(image.step, image.height, image.width) for image in shown] == [(6, 56, 62), (12, 56, 62)]


def test_facts_of_earlier_starts_are_kept_and_an_unreadable_file_is_replaced(tmp_path):
    path = tmp_path / "run.json"
    for left in ("", "{", "[]"):
        path.write_text(left)
        for step in (0, 100, 250):
            add_facts(path, {"step": step})
        assert json.loads(path.read_text()) == {"step": 250, "earlier": [{"step": 0}, {"step": 100}]}
