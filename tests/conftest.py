"""Hypothesis profiles: derandomised in every run, wide under --nightly. Derivations are cached per machine.

Tests work on small tensors in several processes: torch gets one thread in each, and in what they start. Without a GPU
Triton's kernels are run by its interpreter. What hands tests to processes runs none, and waits for no torch.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from pretended_gpu import GPU

settings.register_profile(
    "default", derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("nightly", settings.get_profile("default"), derandomize=False, max_examples=400)

# Files that take longest, which are begun first: one that is begun last would leave the other process idle.
LONGEST = (
    "test_thousand_variations.py",
    "test_identify.py",
    "test_baseline.py",
    "test_tune.py",
    "test_mutants.py",
    "test_examination.py",
    "test_stability.py",
    "test_anatomy.py",
    "test_report.py",
    "test_documents.py",
    "test_prediction.py",
    "test_sampling.py",
    "test_flows.py",
    "test_search.py",
    "test_cli_unmodified.py",
    "test_cli_cifar10_study.py",
    "test_weak_order.py",
    "test_cuda_dry_run_network.py",
    "test_attack_black_box.py",
    "test_derivations.py",
    "test_noise_free.py",
    "test_cli_components.py",
    "test_cuda_dry_run.py",
    "test_probing.py",
    "test_cli_cifar10_train.py",
    "test_report_targets.py",
    "test_gallery.py",
    "test_plugin.py",
    "test_examples.py",
    "test_report_components.py",
    "test_cli.py",
    "test_kernels.py",
    "test_moments.py",
    "test_order.py",
    "test_training.py",
    "test_held.py",
    "test_monte_carlo.py",
    "test_mixture.py",
    "test_cifar10_page.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="many more Hypothesis examples, and the slow tests")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or config.getoption("dist", "no") == "no":
        _prepare_torch()
    gc.disable()  # while thousands of tests are collected, of which none is garbage
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background of a script ignores
    settings.load_profile("nightly" if config.getoption("--nightly") else "default")


def _prepare_torch() -> None:
    import torch

    torch.set_num_threads(1)  # whatever OMP_NUM_THREADS was
    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")  # before it is imported: its kernels then run on a processor


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.collect()
    gc.freeze()  # what is imported by now stays: no test's garbage is looked for in it (a twentieth of the time)
    gc.enable()


def pytest_sessionfinish(session: pytest.Session) -> None:
    gc.unfreeze()  # what packages want to see gone when they end


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))
    if config.getoption("--nightly"):
        return
    slow = [item for item in items if item.get_closest_marker("nightly")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if not item.get_closest_marker("nightly")]


@pytest.fixture
def gpu() -> Iterator[GPU]:
    """The second of two pretended GPUs: what forgets the number is refused."""
    from pretended_gpu import pretended_gpu

    with pretended_gpu() as device:
        yield device


@pytest.fixture
def first_gpu() -> Iterator[GPU]:
    """The first: what "cuda" means."""
    from pretended_gpu import pretended_gpu

    with pretended_gpu(0) as device:
        yield device
