"""The torch sampler is the exact moments' map, and its samples do not depend on how they are batched."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peak_memory import peak_states
from sampler_probe import gaussian_score, probe
from scipy import stats
from strategies import parameters, splittings, words
from weakorder.integrators import sampler
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.compiled import Run, coefficients, compile_step
from weakorder.integrators.grids import GRIDS, time_grid
from weakorder.integrators.sampler import ScoreError, draw_prior, sample
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.verification.exact.moments import exact_moments, step_maps
from weakorder.verification.targets.gaussian import GaussianTarget

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
PARAMS = Parameters()
ROBA = CATALOGUE["ROBA"]


@st.composite
def runs(draw: st.DrawFn, steps: int) -> tuple[Scheme, GaussianTarget, np.ndarray, Parameters]:
    splitting = draw(splittings())
    params = draw(parameters())
    word = draw(words(splitting, consistent=draw(st.booleans()), within_step=True))
    scheme = Scheme(word, splitting, flow=draw(st.sampled_from(["euler", "exact"])))
    target = GaussianTarget.of(draw(st.floats(-2, 2)), draw(st.floats(0.05, 4)), scheme.splitting.diffusion, params)
    first, last = draw(st.floats(0, 0.5)), draw(st.floats(0.6, 1 - params.eps))
    return scheme, target, np.linspace(first, last, steps + 1), params


def assert_close(actual: np.ndarray, expected: np.ndarray, size: float = 1.0) -> None:
    """1e-12, relative to `size` or the largest entry: the entries of one map are sums of terms of that size."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12 * max(size, float(np.abs(expected).max())))


def growth(scheme: Scheme, target: GaussianTarget, taus: np.ndarray, params: Parameters) -> float:
    """The size of the terms that a one-step map is summed from: the product of its segments' absolute values. Rounding
    is relative to it, and in an unstable step, where the terms cancel, it is far above the map's own entries."""
    total = np.eye(2)
    for time, flow, _ in compile_step(scheme, taus, params):
        P, K, _ = (np.abs(entry[0]) for entry in flow)
        closed = P if time is None else P + K @ np.abs(target.precision(target.law(time[0]))[..., 0])
        total = closed @ total
    return float(total.max())


@given(runs(steps=1))
def test_the_probed_step_is_the_exact_moments_map_for_any_word(run) -> None:
    scheme, target, taus, _params = run
    expected = step_maps(scheme, target, taus)
    size = growth(*run)
    matrix, offset, noise_cov = probe(*run)
    # columns of the matrix are differences to the image of 0, whose rounding they have
    assert_close(matrix, expected.matrix[..., 0, 0], max(size, float(np.abs(expected.offset).max())))
    assert_close(offset, expected.offset[..., 0, 0], size * max(1.0, abs(float(target.mean[0]))))
    assert_close(noise_cov, expected.noise_cov[..., 0, 0], size**2)


def test_the_probe_sees_a_noise_off_by_a_part_in_a_million() -> None:
    taus = np.array([0.3, 0.32])
    target = GaussianTarget.of(0.5, 0.25, ROBA.splitting.diffusion, PARAMS)
    off = Scheme(ROBA.word, ROBA.splitting, lambda_s=1 + 1e-6)
    with pytest.raises(AssertionError):
        assert_close(probe(off, target, taus, PARAMS)[2], step_maps(ROBA, target, taus).noise_cov[..., 0, 0])


@pytest.mark.parametrize("scheme", CATALOGUE.values(), ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_run_merged_across_steps_has_the_exact_moments(scheme: Scheme, grid: str) -> None:
    params = Parameters(beta_min=0.1, beta_max=15.9)
    target = GaussianTarget.of(0.7, 0.3, scheme.splitting.diffusion, params)
    taus = time_grid(grid, 20, params, t_end=0.1)
    matrix, offset, noise_cov = probe(scheme, target, taus, params)
    start = target.law(1.0)
    expected = exact_moments(scheme, target, taus).computed
    assert_close(matrix @ start.mean[:, 0] + offset, expected.mean[:, 0])
    assert_close(matrix @ start.cov[..., 0] @ matrix.T + noise_cov, expected.cov[..., 0])


def _start(batch: int, event: tuple[int, ...] = (3,), dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return draw_prior(ROBA.splitting.diffusion, PARAMS, torch.arange(batch), event, dtype=dtype)


SCORE = gaussian_score(GaussianTarget.of(0.5, 0.25, ROBA.splitting.diffusion, PARAMS))
TAUS = time_grid("quadratic", 8, PARAMS)


@given(st.integers(1, 7), st.integers(0, 2**32), st.data())
def test_samples_do_not_depend_on_batch_splits_or_order(batch, seed, data) -> None:
    numbers = torch.tensor(data.draw(st.lists(st.integers(0, 2**40), min_size=batch, max_size=batch)))
    start = draw_prior(ROBA.splitting.diffusion, PARAMS, numbers, (3,), seed)
    whole = sample(ROBA, SCORE, start, TAUS, PARAMS, samples=numbers, seed=seed, denoise=True)
    order = torch.tensor(data.draw(st.permutations(range(batch))))
    cut = data.draw(st.integers(0, batch))
    for rows in (order[:cut], order[cut:]):
        if len(rows):
            part = sample(ROBA, SCORE, start[rows], TAUS, PARAMS, samples=numbers[rows], seed=seed, denoise=True)
            # Bit for bit up to the order of the sums in a matrix product, which libraries choose by shape.
            torch.testing.assert_close(part, whole[rows], rtol=1e-13, atol=1e-13)


@given(st.sampled_from([(), (1,), (3,), (20,), (3, 8, 8)]), st.integers(0, 2**64 - 1), st.data())
def test_no_bit_of_a_sample_depends_on_the_batch_where_none_of_its_score_does(event, seed, data) -> None:
    numbers = torch.tensor(data.draw(st.lists(st.integers(0, 2**40), min_size=2, max_size=7)))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    rows = data.draw(st.lists(st.integers(0, len(numbers) - 1), min_size=1, max_size=7))

    def run(numbers: torch.Tensor) -> torch.Tensor:
        start = draw_prior(ROBA.splitting.diffusion, PARAMS, numbers, event, seed, dtype)
        return sample(ROBA, lambda u, t: -u * (1 + t), start, TAUS, PARAMS, samples=numbers, seed=seed, denoise=True)

    assert torch.equal(run(numbers[rows]), run(numbers)[rows])


def test_another_seed_or_sample_number_gives_other_samples() -> None:
    start = _start(2)
    plain = sample(ROBA, SCORE, start, TAUS, PARAMS)
    assert not torch.allclose(sample(ROBA, SCORE, start, TAUS, PARAMS, seed=1), plain)
    assert not torch.allclose(sample(ROBA, SCORE, start, TAUS, PARAMS, samples=torch.tensor([5, 6])), plain)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.device
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("event", [(), (4,), (3, 4, 4)])
@pytest.mark.parametrize("scheme", CATALOGUE.values(), ids=lambda scheme: scheme.name)
def test_dtype_device_and_shape_are_kept(scheme, event, dtype, device) -> None:
    start = _start(2, event, dtype).to(device)
    out = sample(scheme, SCORE, start, TAUS, PARAMS, denoise=True)
    assert (out.dtype, out.device.type, out.shape) == (dtype, device, start.shape)
    double = sample(scheme, SCORE, start.double(), TAUS, PARAMS, denoise=True)
    torch.testing.assert_close(out.double(), double, rtol=1e-4, atol=1e-4)


def test_the_score_is_asked_as_often_as_the_scheme_says_and_at_its_times() -> None:
    times: list[float] = []

    def counting(u: torch.Tensor, t: float) -> torch.Tensor:
        times.append(t)
        return SCORE(u, t)

    scheme = CATALOGUE["ROBAB"]
    sample(scheme, counting, _start(1), TAUS, PARAMS, denoise=True)
    assert len(times) == scheme.nfe_per_step * 8 + 1
    ends = 1 - TAUS
    expected = np.stack([ends[:-1], ends[1:]], axis=1).reshape(-1)
    np.testing.assert_allclose(times, [*expected, PARAMS.eps], rtol=1e-15)


def _z_scores(out: torch.Tensor, scheme: Scheme, taus: np.ndarray) -> np.ndarray:
    """Sample means and (co)variances against the exact ones, in standard errors of Gaussian samples."""
    target = GaussianTarget.of(0.5, 0.25, scheme.splitting.diffusion, PARAMS)
    law = exact_moments(scheme, target, taus, start="prior", denoise=True).computed
    mean, cov = law.mean[:, 0], law.cov[..., 0]
    u = out.transpose(1, 2).reshape(-1, 2).numpy()
    n = len(u)
    centred = u - mean
    products = (centred[:, :, None] * centred[:, None, :]).mean(0)
    variances = (np.outer(np.diag(cov), np.diag(cov)) + cov**2) / n
    z_mean = centred.mean(0) / np.sqrt(np.diag(cov) / n)
    z_cov = (products - cov) / np.sqrt(variances)
    return np.array([*z_mean, z_cov[0, 0], z_cov[0, 1], z_cov[1, 1]])


# Five normal z-scores for each of five schemes: |z| < 6.4 fails by chance once in 2.6e8 suites at a fresh seed.
BOUND = float(stats.norm.isf(4e-9 / 50))


@pytest.mark.parametrize("name", ["EM", "SSCS", "NOBAB", "ROBA", "ROBAB"])
def test_samples_follow_the_exact_law(name: str) -> None:
    scheme = CATALOGUE[name]
    out = sample(scheme, SCORE, _start(500, (40,)), TAUS, PARAMS, denoise=True)
    assert np.abs(_z_scores(out, scheme, TAUS)).max() < BOUND


def test_the_test_of_the_law_sees_ten_percent_more_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    def louder(run: Run) -> np.ndarray:
        return coefficients(run) * np.where(np.arange(11) < 8, 1, 1.1)

    monkeypatch.setattr(sampler, "coefficients", louder)
    out = sample(ROBA, SCORE, _start(500, (40,)), TAUS, PARAMS, denoise=True)
    assert np.abs(_z_scores(out, ROBA, TAUS)).max() > BOUND


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_stops_the_run_and_says_where(bad: float) -> None:
    def breaks(u: torch.Tensor, t: float) -> torch.Tensor:
        s = SCORE(u, t).clone()
        if t < 0.5:
            s[0, 0, 0] = bad
        return s

    with pytest.raises(ScoreError, match=r"1 of 12 entries .* at step 4 of 8, t = 0\.39\d*; the state is finite, up"):
        sample(ROBA, breaks, _start(2), TAUS, PARAMS)


def test_a_state_that_is_not_finite_already_is_told_from_a_score_that_is_not() -> None:
    start = _start(2)
    start[1, 0] = float("nan")
    with pytest.raises(ScoreError, match="the state was already not finite; correct the score, or take more steps"):
        sample(ROBA, SCORE, start, TAUS, PARAMS)


def test_a_score_of_the_wrong_shape_stops_the_run_and_says_where() -> None:
    with pytest.raises(ScoreError, match=r"shape \(2, 1, 3\) at step 1 of 8, t = 1; it must have .* \(2, 2, 3\)"):
        sample(ROBA, lambda u, _: u[:, :1], _start(2), TAUS, PARAMS)


@pytest.mark.parametrize(
    ("state", "samples", "message"),
    [
        (torch.zeros(3, 3, dtype=torch.float64), None, r"\(3, 3\).*\(batch, 2, \*event\)"),
        (torch.zeros(3, 2, dtype=torch.int64), None, "floating"),
        (
            torch.zeros(3, 2, dtype=torch.float64),
            torch.tensor([1, 2]),
            r"\(2,\).* give one integer >= 0 for each of the 3 states",
        ),
        (torch.zeros(3, 2, dtype=torch.float64), torch.tensor([-1, 2, 3]), "from -1: give one integer >= 0"),
    ],
)
def test_a_bad_state_or_sample_number_is_refused(state, samples, message) -> None:
    with pytest.raises(ValueError, match=message):
        sample(ROBA, SCORE, state, TAUS, PARAMS, samples=samples)


def peak(score: Callable[[torch.Tensor, float], torch.Tensor], batch: int, event: tuple[int, ...]) -> float:
    """The most memory that a run has beside its first state, in states."""
    start = _start(batch, event, torch.float32)
    return peak_states(lambda: sample(ROBA, score, start, TAUS, PARAMS), start)


@pytest.mark.parametrize(("batch", "event"), [(64, (3, 16, 16)), (2000, (8,)), (20_000, (1,))])
def test_a_run_has_at_most_three_states_at_a_time_beside_its_first(batch: int, event: tuple[int, ...]) -> None:
    """The last state, its score and the next; the samples' numbers are 8 bytes a row."""
    numbers = 8 * batch / (4 * 2 * batch * int(np.prod(event)))
    assert peak(lambda u, t: -u, batch, event) <= 3 + numbers + 1e-3
    assert peak(lambda u, t: -u + 0 * u, batch, event) > 3.9  # a score that needs two more for itself


def test_a_grid_is_looked_at_as_it_was_given() -> None:
    """Though tables are kept for the batches that follow, by their grid's numbers."""
    for taus, message in ((TAUS[None], "axis"), (TAUS[:1], "no step"), (TAUS[::-1], "increase strictly")):
        with pytest.raises(ValueError, match=message):
            sample(ROBA, SCORE, _start(1), taus, PARAMS)
    first = sample(ROBA, SCORE, _start(1), TAUS, PARAMS)
    assert torch.equal(sample(ROBA, SCORE, _start(1), TAUS.copy(), PARAMS), first)
    assert not torch.equal(sample(ROBA, SCORE, _start(1), TAUS[1:], PARAMS), first)
    assert not torch.equal(sample(ROBA, SCORE, _start(1), TAUS, Parameters(gamma=0.02, nu=4.02)), first)


def test_the_true_flow_cannot_be_compiled_and_says_what_to_use() -> None:
    with pytest.raises(ValueError, match="use exact moments"):
        sample(Scheme("O S B A", ROBA.splitting, flow="true"), SCORE, _start(1), TAUS, PARAMS)
