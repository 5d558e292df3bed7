"""Where a whole run gets its noise from: from lists of generators, one for each image, and from other devices."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from own_grids import broken
from weakorder.examples import own_grid
from weakorder.integrators.blackbox import BlackBoxError
from weakorder.integrators.unmodified import function_sampler
from weakorder.theory.paths import PATHS
from weakorder.verification.unmodified import transcribe

STEPS = 6


def drawing(draw, event=(1, 1, 1)):
    """Ancestral sampling with its noise from `draw(x, generators)`, of which there is one for each image."""
    module = broken(("torch.randn_like(x)", "draw(x, generators)"))

    def sample(model, x, steps):
        generators = [torch.Generator().manual_seed(k) for k in range(len(x))]
        module.ancestral.__globals__.update(draw=draw, generators=generators)
        return module.ancestral(model, x, steps)

    return function_sampler("mine", sample, PATHS["vp"], "eps", event=event)


LISTS = {
    "diffusers' randn_tensor": lambda x, each: randn_tensor(x.shape, generator=each, dtype=x.dtype),
    "cat": lambda x, each: torch.cat([torch.randn((1, *x.shape[1:]), generator=g, dtype=x.dtype) for g in each]),
    "stack": lambda x, each: torch.stack([torch.randn(x.shape[1:], generator=g, dtype=x.dtype) for g in each]),
}


@pytest.mark.parametrize("event", [(1, 1, 1), (3, 2, 2)])
@pytest.mark.parametrize("name", LISTS)
def test_a_generator_for_each_image_is_read_as_one_for_all(name, event):
    plain = transcribe(function_sampler("plain", own_grid.ancestral, PATHS["vp"], "eps", event=event), STEPS)
    run = transcribe(drawing(LISTS[name], event), STEPS)
    for one, other in ((plain.start, run.start), (plain.gains, run.gains), (plain.noise, run.noise)):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-12 * np.abs(one).max())


def test_noise_of_a_generator_for_each_image_that_is_too_loud_is_seen():
    plain = transcribe(drawing(LISTS["cat"]), STEPS)
    louder = transcribe(drawing(lambda x, each: 1.1 * LISTS["cat"](x, each)), STEPS)
    np.testing.assert_allclose(louder.noise[1], 1.1 * plain.noise[1], rtol=1e-12)
    assert plain.noise[1].any()


def test_a_generator_for_all_images_that_draws_for_one_is_refused_by_name():
    shared = drawing(lambda x, each: torch.randn((1, *x.shape[1:]), generator=each[0], dtype=x.dtype).expand_as(x))
    with pytest.raises(BlackBoxError, match="several entries share their noise"):
        transcribe(shared, STEPS)


def test_a_generator_on_another_device_works_where_there_is_one_and_is_named_where_there_is_none():
    def draw(x, each):
        if each[0].device.type == "cpu":
            each[0] = torch.Generator("cuda").manual_seed(0)
        return torch.randn(x.shape, generator=each[0], device="cuda", dtype=x.dtype).to(x.device)

    if torch.cuda.is_available():
        assert transcribe(drawing(draw), STEPS).draws == STEPS
        return
    with pytest.raises(BlackBoxError, match=r"(?i)cuda") as caught:
        transcribe(drawing(draw), STEPS)
    assert "\n" not in str(caught.value)


def remembering(when):
    """Ancestral sampling whose noise acts in the calls k = 0, 1, ... for which `when(k)`."""
    calls = []

    def draw(x, each):
        return torch.randn_like(x) * when(len(calls) - 1)

    sampler = drawing(draw)
    begun = sampler.prepare

    def prepare(steps, exact):
        ready = begun(steps, exact)
        run = ready.sample
        return dataclasses.replace(ready, sample=lambda *given: (calls.append(0), run(*given))[1])

    return dataclasses.replace(sampler, prepare=prepare)


@pytest.mark.parametrize(
    "when", [lambda k: k > 0, lambda k: k == 0, lambda k: k > 1, lambda k: k % 2], ids=["not 0", "0", "not 0, 1", "odd"]
)
def test_a_run_that_is_another_one_when_it_is_called_again_is_refused(when):
    with pytest.raises(BlackBoxError, match="state is left over from its former runs; begin each run afresh"):
        transcribe(remembering(when), STEPS)


def test_noise_that_is_kept_from_run_to_run_is_refused():
    kept, drawn = {}, []

    def draw(x, each):
        drawn.append(0)
        place = (len(drawn) % STEPS, x.shape)
        if place not in kept:
            kept[place] = torch.randn_like(x)
        return kept[place]

    with pytest.raises(BlackBoxError, match="state is left over from its former runs; begin each run afresh"):
        transcribe(drawing(draw), STEPS)


def test_a_run_that_remembers_nothing_is_read_as_it_is():
    plain, same = (transcribe(sampler, STEPS) for sampler in (drawing(LISTS["cat"]), remembering(lambda k: True)))
    np.testing.assert_allclose(same.noise, plain.noise, rtol=1e-12)
    assert plain.noise.any()
