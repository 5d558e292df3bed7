"""The page of a library's samplers: its survey, what a row says, and which samplers are compared."""

import json

import numpy as np
import pytest
from json_schemas import complaints
from weakorder.reports.pages.strict_json import dumps
from weakorder.reports.pages.survey import render, run_survey
from weakorder.verification.exact import Spectrum, cifar10_spectrum
from weakorder.verification.unmodified import (
    SURVEYS,
    Configuration,
    coverage,
    on_mixture,
    study_on_mixture,
    surveyed,
    transcribe,
)
from weakorder.verification.unmodified import survey as of_survey
from weakorder.verification.unmodified.configurations import samplers_of


@pytest.fixture(scope="module")
def survey():
    chosen = (
        Configuration("diffusers", "EDMEulerScheduler"),
        Configuration("diffusers", "FlowMatchHeunDiscreteScheduler"),
        Configuration("diffusers", "DDPMScheduler", (("variance_type", "fixed_large_log"),)),
        Configuration("diffusers", "DDPMScheduler", (("banana", 1),)),
    )
    return run_survey("diffusers", configurations=chosen)


def test_a_survey_ranks_by_the_distance_at_50_evaluations_and_drops_none(survey):
    names = [entry["sampler"] for entry in survey["samplers"]]
    assert names == [
        "FlowMatchHeunDiscreteScheduler",
        "EDMEulerScheduler",
        "DDPMScheduler banana=1",
        "DDPMScheduler variance_type=fixed_large_log",
    ]
    verdicts = [entry.get("verdict", "refused") for entry in survey["samplers"]]
    assert verdicts == ["PASS", "PASS", "refused", "FAIL"]


def test_a_survey_is_as_its_schema_says(survey):
    assert complaints("survey", json.loads(dumps(survey))) == []
    assert complaints("survey", survey | {"samplers": [{"sampler": "mine"}]}) != []
    assert complaints("survey", survey | {"budgets": ["ten"]}) != []


def test_a_run_uses_no_more_evaluations_than_its_budget_and_nearly_all(survey):
    for entry in survey["samplers"][:2]:
        for level in entry["distances"]["default"]:
            assert level["budget"] - 2 <= level["nfe"] <= level["budget"]


def test_distances_fall_with_the_evaluations_where_a_sampler_is_right(survey):
    for entry in survey["samplers"][:2]:
        distances = [level["distance"] for level in entry["distances"]["default"]]
        assert distances == sorted(distances, reverse=True)


def test_the_page_shows_every_sampler_with_its_verdict(survey):
    page = render(survey)
    assert all(f"<code>{entry['sampler']}</code>" in page for entry in survey["samplers"])
    assert page.count('<span class="verdict PASS">') == 2
    assert page.count('<span class="verdict FAIL">') == 1
    assert "is not finite" in page


def confirmed(order, gaussian, settled=True, why=""):
    """What a row says of the mixture."""
    entry = {"order": order, "low": order, "high": order, "settled": settled, "gaussian": gaussian, "why": why}
    return entry | {"flattered": order is not None and gaussian > order + 0.5}


@pytest.fixture(scope="module")
def compared(survey):
    """The same survey with what its rows would say of the mixture: one as on Gaussian data, one flattered, two none."""
    none = confirmed(None, 1.0, why="it is <not> known")
    said = [
        {"default": confirmed(2.0, 2.0, settled=False)},
        {"default": confirmed(1.49, 3.02), "exponential": none, "karras": none},
        {},
        {"default": none},
    ]
    rows = [entry | {"mixture": there} for entry, there in zip(survey["samplers"], said, strict=True)]
    return survey | {"targets": ["gaussian", "mixture"], "samplers": rows}


def test_the_page_says_where_gaussian_data_flatter_and_why_a_row_has_no_order(survey, compared):
    page = render(compared)
    assert page.count('<td class="n flattered">1.49</td>') == 1
    assert page.count('<td class="n">~2.00</td>') == 1
    assert "Gaussian data flatter 1 of 2 rows" in page
    assert "<code>EDMEulerScheduler</code> on its default grid shows order 3.02 and has 1.49" in page
    told = "no order on the mixture, the exponential grid and the karras grid: it is &lt;not&gt; known"  # once for both
    assert page.count(told) == page.count("no order on the mixture") == 1
    assert "weakorder report diffusers --target mixture" in page
    plain = render(survey)
    assert "mixture</th>" in page
    assert "mixture</th>" not in plain
    assert "flatter" not in plain.split("</head>")[1].split("What this cannot say")[0]


def test_a_survey_of_the_mixture_is_as_its_schema_says(compared):
    assert complaints("survey", json.loads(dumps(compared))) == []
    assert complaints("survey", compared | {"targets": ["banana"]}) != []
    wrong = compared["samplers"][0] | {"mixture": {"default": {"order": 2.0}}}
    assert complaints("survey", compared | {"samplers": [wrong]}) != []


def test_a_row_has_its_order_on_the_mixture_or_the_reason_for_none():
    few = (5, 10, 20, 40)
    found = on_mixture(Configuration("diffusers", "EDMEulerScheduler"), few)["default"]
    assert (found["order"], found["why"]) == (pytest.approx(1.0, abs=0.1), "")
    assert not found["flattered"]
    found = on_mixture(Configuration("k-diffusion", "sample_dpmpp_3m_sde"), few)["karras"]
    assert found["order"] is None
    assert "told by its last 3" in found["why"]
    nan = on_mixture(Configuration("diffusers", "DDPMScheduler", (("variance_type", "fixed_large_log"),)), few)
    assert "NaN" in nan["default"]["why"]
    assert on_mixture(Configuration("k-diffusion", "sample_dpm_adaptive"), few) == {}


@pytest.mark.nightly
def test_a_row_with_a_memory_and_noise_goes_one_level_further_and_has_its_order():
    """Claim: at 20 steps its law is on no lattice, and the row has order 2 all the same."""
    configuration = Configuration("k-diffusion", "sample_dpmpp_2m_sde")
    for grid, found in on_mixture(configuration, (20, 40, 80, 160)).items():
        assert (grid, found["order"], found["why"]) == (grid, pytest.approx(2.0, abs=0.1), "")
    refused = study_on_mixture({"karras": configuration.grids()["karras"]}, steps=(20, 40, 80, 160))
    assert refused.grids[0].fit is None


# --- Which samplers are compared --------------------------------------------------------------------------------------


def test_samplers_are_ranked_on_one_schedule_and_never_across(survey):
    schedules = {entry["sampler"].split()[0]: entry.get("schedule", "") for entry in survey["samplers"]}
    assert "rectified flow" in schedules["FlowMatchHeunDiscreteScheduler"]
    assert "Stable Diffusion" in schedules["DDPMScheduler"]
    assert schedules["EDMEulerScheduler"].endswith("α = 1, σ from 80")
    assert sorted(survey["schedules"]) == sorted(set(schedules.values()))
    page = render(survey)
    assert page.count('<table class="samplers">') == 3
    edm = page.split("<h2>Data with noise added")[1].split("</table>")[0]
    assert "σ/α from 80.0 at the start to 0.00200 at the last evaluation" in edm
    assert "FlowMatch" not in edm


def test_another_setting_of_the_schedule_is_another_schedule():
    """Claim: a flow's shift makes one, and a flag of the method does not."""
    name, shift, method = "FlowMatchEulerDiscreteScheduler", ("shift", 3.0), ("stochastic_sampling", True)
    said = []
    for settings in ((), (shift,), (method,)):
        configuration = Configuration("diffusers", name, settings)
        said.append(of_survey.schedule_of(configuration, configuration.grids()))
    assert said[0] == said[2] != said[1]
    assert said[1].endswith("shift=3.0")


def test_more_noise_at_the_start_is_another_schedule():
    """Claim: EDM's 80 and the cosine solver's 500 do not compare, though both add noise; churn changes neither."""
    said = {}
    for name, settings in (("EDMEulerScheduler", ()), ("CosineDPMSolverMultistepScheduler", ())):
        configuration = Configuration("diffusers", name, settings)
        said[name] = of_survey.schedule_of(configuration, configuration.grids())
    churned = Configuration("diffusers", "EDMEulerScheduler", (("s_churn", 20.0),))
    assert said["EDMEulerScheduler"] == of_survey.schedule_of(churned, churned.grids())
    assert said["CosineDPMSolverMultistepScheduler"].endswith("σ from 500")


def test_the_floor_is_what_a_denoiser_leaves_of_the_exact_law():
    """Of alpha = 1 its answer has variance v^2 / (v + sigma^2), and the data's mean."""
    data = Spectrum(np.array([4.0, 0.25, 1e-4]), np.array([1.0, 0.0, -2.0]), 9)
    (sampler, *_) = Configuration("diffusers", "EDMEulerScheduler").grids().values()
    run = transcribe(sampler, 10, exact=False)
    v, sigma = data.variances, run.levels[-1].sigma
    expected = ((v / np.sqrt(v + sigma**2) - np.sqrt(v)) ** 2).sum()
    assert of_survey.floor_of(sampler, run, data) == pytest.approx(expected, rel=1e-9)
    assert of_survey.floor_of(sampler, run) > 2 * expected


def test_distances_are_to_the_data_that_are_given_and_verdicts_are_not(survey):
    data, known = Spectrum(np.array([1e-3]), np.array([0.0]), 9), survey["samplers"][1]
    own = surveyed(Configuration("diffusers", "EDMEulerScheduler"), survey["steps"], data)
    assert (own["verdict"], own["constants"]) == (known["verdict"], known["constants"])
    for grid, levels in own["distances"].items():
        assert [a["nfe"] for a in levels] == [b["nfe"] for b in known["distances"][grid]]
        # 3,072 coordinates with up to 10^4 times the variance
        assert all(100 * a["distance"] < b["distance"] for a, b in zip(levels, known["distances"][grid], strict=True))


def test_the_page_says_whose_images_distances_are_to(survey):
    assert survey["data"] == {"name": "CIFAR-10", "images": cifar10_spectrum().images, "dimensions": 3072}
    page = render(survey | {"data": {"name": "my <cats>", "images": 9, "dimensions": 48}})
    assert "Distances are to my &lt;cats&gt; (9 images)" in page
    assert "--data my &lt;cats&gt;" in page
    assert "CIFAR-10" not in page
    assert "--data" not in render(survey)


def test_what_looks_back_is_looked_at_on_two_grids_wherever_it_has_them():
    assert list(samplers_of("diffusers", "EDMDPMSolverMultistepScheduler", {})) == ["default", "exponential"]
    assert list(samplers_of("diffusers", "DPMSolverMultistepScheduler", {})) == ["default", "karras"]
    assert list(samplers_of("k-diffusion", "sample_dpmpp_2m", {})) == ["karras", "exponential"]


def test_a_grid_that_the_settings_name_is_called_so_and_has_another_beside_it():
    found = samplers_of("diffusers", "EulerDiscreteScheduler", {"use_karras_sigmas": True})
    assert list(found) == ["karras", "exponential"]
    asked = samplers_of("diffusers", "EulerDiscreteScheduler", {}, "karras")["karras"]
    assert transcribe(found["karras"], 10).levels == transcribe(asked, 10).levels
    assert transcribe(found["exponential"], 10).levels != transcribe(asked, 10).levels


@pytest.mark.parametrize(
    ("library", "other"), [("diffusers", "RePaintScheduler"), ("k-diffusion", "sample_dpm_adaptive")]
)
def test_every_sampler_of_the_library_is_surveyed_or_named_with_the_reason(library, other):
    found, names = coverage(library), {configuration.name for configuration in SURVEYS[library]}
    assert found["surveyed"] == len(names)
    assert found["of"] == len(names) + len(found["others"])
    assert not names & found["others"].keys()
    assert found["others"][other]


def test_a_pass_on_a_part_of_its_grid_says_which(survey):
    name, reason = "FlowMatchHeunDiscreteScheduler", "measured on its default grid down to sigma = 0.225"
    entry = survey["samplers"][0] | {"reason": reason}
    assert entry["sampler"] == name
    page = survey | {"samplers": [entry]}
    assert reason not in render(page)
    assert reason in render(changed(page, name, order=0.59, low=0.5, high=0.7))


def test_the_page_says_how_many_are_not_there_and_why(survey):
    others = {"FooScheduler": "it needs a <mask>"}
    page = render(survey | {"coverage": {"surveyed": 21, "of": 22, "others": others}})
    assert "of 21 of diffusers’ 22 samplers" in page
    assert "<dt><code>FooScheduler</code></dt><dd>it needs a &lt;mask&gt;</dd>" in page


def test_configurations_are_each_others_alone_and_known_to_the_library():
    for configurations in SURVEYS.values():
        assert len(set(configurations)) == len(configurations)
        assert all(configuration.grids() for configuration in configurations)


# --- What a row says --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyError("sigma"), ImportError("no torchsde"), RuntimeError("no\nsuch shape")])
def test_whatever_the_library_raises_is_a_refusal_with_its_sentence(monkeypatch, error):
    def raises(*_, **__):
        raise error

    monkeypatch.setattr(of_survey, "study_unmodified", raises)
    monkeypatch.setattr(of_survey, "study_on_mixture", raises)
    configuration = Configuration("diffusers", "EDMEulerScheduler")
    entry = surveyed(configuration)
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    assert (entry["refused"], entry["distances"]) == (said, {})
    assert {row["why"] for row in on_mixture(configuration).values()} == {said}


def test_a_run_that_is_not_finite_is_named_once_with_its_first_step(survey):
    page = render(survey)
    row = page.split("variance_type=fixed_large_log")[1]
    assert "its result is not finite at 20 steps on its default grid: the sampler returns NaN in the state of" in row
    assert "160 steps the sampler" not in page
    assert page.count("returns NaN") == 1
    assert survey["samplers"][-1]["warnings"][0].startswith("in a run of 20 steps the sampler returns NaN")


def test_a_refused_sampler_stands_apart_with_the_reason(survey):
    refused = render(survey).split("<h2>Refused</h2>")[1]
    assert "DDPMScheduler banana=1" in refused
    assert "has no setting &#39;banana&#39;" in refused


def test_a_step_of_heuns_costs_two_evaluations_and_the_table_says_so(survey):
    heun, euler = survey["samplers"][:2]
    assert heun["constants"]["default"]["nfe"] == pytest.approx(2, abs=0.01)  # the last step to no noise takes one
    assert euler["constants"]["default"]["nfe"] == 1
    assert '<td class="n">1.99</td><td class="n">0.00</td>' in render(survey)


def changed(survey, sampler, **said):
    """The survey with something else said of that sampler's default grid."""
    rows = []
    for entry in survey["samplers"]:
        if entry["sampler"] == sampler:
            default = entry["constants"]["default"] | said
            entry = entry | {"constants": entry["constants"] | {"default": default}}
        rows.append(entry)
    return survey | {"samplers": rows}


def test_no_order_is_printed_whose_interval_is_wider_than_1(survey):
    name = "FlowMatchHeunDiscreteScheduler"
    page = render(changed(survey, name, order=11.17, low=-1.6, high=23.94, settled=False))
    assert 'title="11.17 in [-1.60, 23.94]: too wide to say">–*</span>' in page
    assert "11.2" not in page
    reason = "measured order {} in [{}, {}], expected 2; the order is not settled"
    rows = [entry | {"verdict": "INCONCLUSIVE"} for entry in survey["samplers"][:1]]
    for order, shown in (((11.17, -1.6, 23.94), "–*"), ((1.76, 1.5, 2.02), "1.76 in [1.5, 2.02]")):
        page = render(survey | {"samplers": [rows[0] | {"reason": reason.format(*order)}]})
        assert f"measured order {shown}, expected 2; the order is not settled" in page
    page = render(changed(survey, name, order=11.17, low=10.8, high=11.5, settled=False))
    assert "~11.2</td>" in page
    assert "11.17" not in page


def test_a_pass_beside_a_lower_order_on_another_grid_is_explained_on_the_row(survey):
    said = "its order is judged on the exponential grid; its default grid shows order 0.01, since its steps in log σ"
    page = render(changed(survey, "EDMEulerScheduler", order=0.01, low=-0.1, high=0.1, decides=False))
    assert said in page
    page_of_less = render(changed(survey, "EDMEulerScheduler", order=0.6, low=0.5, high=0.7, decides=False))
    assert "its default grid shows order 0.60, since" in page_of_less
    assert '<td class="n beside">0.0100</td>' in page
    for right in ({"decides": False}, {"order": 0.01, "low": -0.1, "high": 0.1, "decides": True}):
        assert "its order is judged on" not in render(changed(survey, "EDMEulerScheduler", **right))
    assert "its order is judged on" not in render(survey)
