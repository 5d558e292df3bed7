"""What is claimed of the order of each sampler, by whom, and what it is held to.

A paper's order is that of its method; what ships has a start, and a setting. A multistep method whose first step is of
order 1 makes an error of h^2 there, once: in the limit it has order 2, however many answers it remembers (the fourth
order of LMS shows on Karras' grid up to some hundreds of steps, where the first step is next to nothing). So it is held
to 2, and what is claimed is said beside it. Where no paper gives an order, that is said too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Settings = Mapping[str, Any]
Order = Callable[[Settings], "Held"]
_DPM = "Lu et al. 2022, DPM-Solver, theorem 3.2"
_DPMPP = "Lu et al. 2022, DPM-Solver++"
_EDM = "Karras et al. 2022"
_NOISE = "no paper gives a weak order; Euler-Maruyama has 1"


class Held(NamedTuple):
    """The weak order that a sampler is held to, and in a phrase who claims it, or why it is this one."""

    order: int
    said: str


def _claimed(order: int, by: str) -> Held:
    return Held(order, f"claimed: {by}")


def _held(order: int, why: str) -> Held:
    return Held(order, f"held to: {why}")


def _from_first_order(order: int, by: str) -> Held:
    """Of a multistep method of this order whose first step is of order 1."""
    if order <= 2:
        return _claimed(order, by)
    return _held(2, f"order {order} claimed ({by}), after a first step of order 1")


def ddim(settings: Settings) -> Held:
    """DDIM is DPM-Solver-1 (Lu et al. 2022, section 4.1); with eta it draws."""
    return _held(1, _NOISE) if settings.get("eta") else _claimed(1, _DPM)


def ancestral(_: Settings) -> Held:
    """Ancestral sampling discretises the reverse SDE (Song et al. 2021, appendix E)."""
    return _held(1, _NOISE)


def euler(_: Settings) -> Held:
    """Euler's method."""
    return _claimed(1, f"Euler's method; {_EDM}, section 3")


def heun(_: Settings) -> Held:
    """Heun's method."""
    return _claimed(2, f"{_EDM}, section 3 and algorithm 1")


def kdpm2(_: Settings) -> Held:
    """The midpoint in log sigma."""
    return _claimed(2, f"{_DPM}, DPM-Solver-2")


def deis(settings: Settings) -> Held:
    """Adams-Bashforth on polynomials of the answers, with as many as there are so far."""
    return _from_first_order(int(settings["solver_order"]), "Zhang and Chen 2023, tAB-DEIS")


def _is_sde(settings: Settings) -> bool:
    return str(settings.get("algorithm_type", "")).startswith("sde")


def cosine_dpm(settings: Settings) -> Held:
    """SDE-DPM-Solver++ with a memory."""
    return dpm_multistep({**settings, "algorithm_type": "sde-dpmsolver++"})


def dpm_multistep(settings: Settings) -> Held:
    """Of DPM-Solver and its ++ and SDE forms with a memory."""
    order = int(settings["solver_order"])
    if order > 2:
        noise = " with noise" if _is_sde(settings) else ""
        return _held(2, f"no paper proves solver_order={order} with a memory{noise}; its first step is of order 1")
    if _is_sde(settings):
        return _held(order, f"{_DPMPP}, has it as SDE-DPM-Solver++({order}{'M' if order > 1 else ''}), with no order")
    return _claimed(order, _DPMPP if str(settings.get("algorithm_type")).endswith("++") else _DPM)


def dpm_singlestep(settings: Settings) -> Held:
    """Of the same without a memory: a step of order p takes p evaluations, and begins with none before it."""
    order = int(settings["solver_order"])
    if _is_sde(settings) and order > 1:
        return _held(order, "its setting solver_order; no paper has it with noise (SDE-DPM-Solver++ is 1 and 2M)")
    return _claimed(order, f"{_DPM} (DPM-Solver-{order})")


def dpm_sde(settings: Settings) -> Held:
    """Two stages over one Brownian path; DPM-Solver++(2S) without noise."""
    return _claimed(2, f"{_DPMPP}, 2S, eta = 0") if settings.get("eta") == 0 else _held(1, "no paper has it")


def lms(settings: Settings) -> Held:
    """Adams-Bashforth in sigma, with as many answers as there are so far."""
    return _from_first_order(int(settings.get("order", 4)), "linear multistep of that many answers")


def pndm(_: Settings) -> Held:
    """Pseudo linear multistep."""
    return _claimed(2, "Liu et al. 2022, PNDM")


def sa_solver(settings: Settings) -> Held:
    """A predictor of s steps errs by sup(tau) h + h^s, with a corrector by sup(tau) h + h^(s+1); its first step has
    neither more."""
    tau = settings.get("tau_func")
    by = "Xue et al. 2023, SA-Solver, theorems 5.1 and 5.2"
    if tau is None or any(tau(row) for row in range(1000)):
        return _claimed(1, f"{by}, tau above 0")
    order = max(int(settings["predictor_order"]), int(settings["corrector_order"]))
    return _from_first_order(order, f"{by}, tau = 0")


def unipc(settings: Settings) -> Held:
    """UniC makes p + 1 of UniP's p. That shows where the grid is smooth in log sigma, and on a flow's, whose last steps
    halve sigma however many there are, it does not: so it is held to its predictor's order."""
    order = int(settings["solver_order"])
    by = "Zhao et al. 2023, UniPC, section 3"
    if settings.get("disable_corrector"):
        return _from_first_order(order, f"{by}, its predictor")
    return _held(min(order, 2), f"order {order + 1} claimed ({by}), where steps in log sigma shrink everywhere")


def consistency(_: Settings) -> Held:
    """Of samplers of consistency networks."""
    return _held(1, "it is for consistency networks, and no order is claimed for another")


# --- k-diffusion ------------------------------------------------------------------------------------------------------

_CHURN = "with s_churn each step adds noise exactly and takes it off again"


def plain_euler(_: Settings) -> Held:
    """Euler's method, with churn or without."""
    return _claimed(1, f"{_EDM}, section 3")


def plain_second(settings: Settings) -> Held:
    """Heun's method and the midpoint, with churn or without: the law is as exact as the method between."""
    return _claimed(2, f"{_EDM}, algorithms 1 and 2" + (f"; {_CHURN}" if settings.get("s_churn") else ""))


def with_eta(order: int, by: str) -> Order:
    """Of a method that draws with eta, and without is one of an ODE that has this order."""

    def held(settings: Settings) -> Held:
        return _from_first_order(order, f"{by}, eta = 0") if settings.get("eta") == 0 else _held(1, _NOISE)

    return held


def dpm_fast(settings: Settings) -> Held:
    """Steps of three evaluations, and a last one of two or one, where that does not go up."""
    if settings.get("eta"):
        return _held(1, _NOISE)
    return _held(2, f"order 3 claimed ({_DPM} and DPM-Solver-fast), before a last step of a lower order")


def multistep_sde(order: int) -> Order:
    """SDE-DPM-Solver++ with a memory, as `dpm_multistep`; eta = 0 has no noise."""

    def held(settings: Settings) -> Held:
        kind = "dpmsolver++" if settings.get("eta") == 0 else "sde-dpmsolver++"
        return dpm_multistep({"solver_order": order, "algorithm_type": kind})

    return held


# --- What is not modelled ---------------------------------------------------------------------------------------------

_TOKENS = "its states are tokens, of which no Gaussian is one"
_DISTILLED = "its network is distilled, and predicts no data, noise or velocity at one time"
_BACKWARD = "it runs from data to noise"
_OWN_LOOP = "it is deprecated, and its step is another in a loop of its own"
# Schedulers of diffusers, each with the reason.
NOT_MODELLED: dict[str, str] = {
    "AmusedScheduler": _TOKENS,
    "BlockRefinementScheduler": _TOKENS,
    "CMStochasticIterativeScheduler": _DISTILLED,
    "CogVideoXDPMScheduler": "its step is handed the last prediction and the next time by its pipeline",
    "ConsistencyDecoderScheduler": _DISTILLED,
    "DDIMInverseScheduler": _BACKWARD,
    "DDPMWuerstchenScheduler": "its time is a number for each image, of a cosine that is clamped",
    "DPMSolverMultistepInverseScheduler": _BACKWARD,
    "DiscreteDDIMScheduler": _TOKENS,
    "EntropyBoundScheduler": _TOKENS,
    "FlowMapEulerDiscreteScheduler": _DISTILLED,
    "FlowMatchLCMScheduler": _DISTILLED,
    "HeliosDMDScheduler": _DISTILLED,
    "HeliosScheduler": "it runs in stages at several resolutions",
    "IPNDMScheduler": "its first step, at alpha = 0, divides by 1e-8, and what its network answers there is lost",
    "KarrasVeScheduler": _OWN_LOOP,
    "MiniMaxH3Scheduler": "its network is told 1 - sigma, and answers in that time",
    "PiflowScheduler": _DISTILLED,
    "RFD4ProteinaScheduler": "it rescales the score, to another law than the data's",
    "RePaintScheduler": "it needs a picture and a mask",
    "SCMScheduler": _DISTILLED,
    "ScoreSdeVeScheduler": _OWN_LOOP,
    "ScoreSdeVpScheduler": _OWN_LOOP,
    "UnCLIPScheduler": "its table of alpha_bar is its own, and takes no finer one",
    "VQDiffusionScheduler": _TOKENS,
}
