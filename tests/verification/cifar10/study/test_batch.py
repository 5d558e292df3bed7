"""The size of a study's batches: a study that goes on has the same, and a trial does not slow down what comes after."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.theory.model import Parameters
from weakorder.verification.cifar10.model.network import Config
from weakorder.verification.cifar10.study import design as study
from weakorder.verification.cifar10.study.cells import Model

CPU = torch.device("cpu")
MODEL = Model("none", Parameters(), Config(nf=4, ch_mult=(1, 1)), lambda device: lambda u, t: u)


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many samples memory allows at once; of the samples a thread of two takes half."""
    largest = {"batch": 16}
    monkeypatch.setattr(
        study, "batch_size", lambda config, columns, samples, device: min(largest["batch"], max(1, samples // 2))
    )
    return largest


def begin(folder: Path, samples: int, wanted: int | None = None) -> int:
    """The batch of a study that begins, or goes on, in the folder."""
    design = study.Design((CATALOGUE["SSCS"],), (9,), samples=samples, refinement=0)
    size = study.batch_of(folder, design, MODEL, CPU, wanted)
    study.keep_batch(folder, size, samples if wanted is None else None)
    return size


def test_a_study_that_goes_on_has_its_batches_whatever_memory_allows_by_then(
    tmp_path: Path, memory: dict[str, int]
) -> None:
    memory["batch"] = 2
    assert begin(tmp_path, 64) == 2
    memory["batch"] = 256
    assert begin(tmp_path, 64) == 2
    assert begin(tmp_path, 10) == 2


def test_more_samples_go_on_with_the_batches_that_are_there(tmp_path: Path) -> None:
    assert begin(tmp_path, 16) == 8
    assert begin(tmp_path, 64) == 8
    assert study.kept_batch(tmp_path) == (8, 64), "that study, too, has them when it goes on"


def test_a_trial_does_not_leave_its_batches_to_a_study(tmp_path: Path) -> None:
    assert begin(tmp_path, 2) == 1
    assert begin(tmp_path, 3) == 1
    assert begin(tmp_path, 64) == 16
    assert begin(tmp_path, 2) == 16, "the trial again, with the samples that are there by now"


def test_batches_that_the_user_chose_are_kept_for_any_number(tmp_path: Path) -> None:
    assert begin(tmp_path, 2, wanted=1) == 1
    assert begin(tmp_path, 64) == 1
    assert begin(tmp_path, 64) == 1
    assert begin(tmp_path, 64, wanted=16) == 16


def test_a_folder_of_before_that_notes_the_size_alone_keeps_it(tmp_path: Path) -> None:
    (tmp_path / study.BATCH).write_text("4")
    assert begin(tmp_path, 64) == 4


@pytest.mark.parametrize("text", ["", "many", "1 2 3", "16 x"])
def test_a_note_that_cannot_be_read_is_refused_until_the_user_chooses(text: str, tmp_path: Path) -> None:
    (tmp_path / study.BATCH).write_text(text)
    with pytest.raises(ValueError, match="holds no number of samples; remove it, or give --batch"):
        begin(tmp_path, 4)
    assert begin(tmp_path, 4, wanted=2) == 2
