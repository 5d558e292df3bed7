"""What a study answers at each budget: ratios of weak errors with their error bars, told apart at four of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from parsed_page import Page
from synthetic_study import FEW, photographs, synthetic
from weakorder.reports.commands import cifar10_study
from weakorder.reports.pages import cifar10_page
from weakorder.reports.pages.cifar10_answers import Answer, answers

NAMES = ("ROBA", "EM", "SSCS", "NVV", "RVV")


def study(ratios: dict[str, tuple[float, float]], sure: bool = True) -> dict[str, Any]:
    """Results whose spectra at 20 evaluations have these ratios to ROBA's; NVV diverged there."""
    results = synthetic(NAMES, budgets=(20,), compared=FEW)
    for scheme in results["schemes"]:
        (cell,) = scheme["cells"]
        if cell["diverged"]:
            continue
        entry = cell["weak"]["spectrum"]
        if scheme["name"] == "ROBA":
            entry |= {"value": 0.8, "relative": 0.4, "standard_error": 0.06, "sure": sure}
        else:
            value, error = ratios[scheme["name"]]
            entry["ratio"] = {"value": value, "standard_error": error, "sure": True}
    return results


def test_schemes_are_nearer_or_further_where_four_standard_errors_of_the_ratio_say_so() -> None:
    (found,) = answers(study({"EM": (0.7, 0.07), "SSCS": (1.5, 0.13), "RVV": (0.7, 0.08)}))
    assert found.error == pytest.approx((0.4, 0.03))
    # 1.5 - 4 * 0.13 is below 1, and 0.7 + 4 * 0.08 is above
    assert (found.nearer, found.further) == ((("EM", 0.7, 0.07),), ())
    assert (found.open, found.diverged) == (("SSCS", "RVV"), ("NVV",))
    (found,) = answers(study({"EM": (0.7, 0.02), "SSCS": (1.5, 0.12), "RVV": (0.3, 0.08)}))
    assert [name for name, *_ in found.nearer] == ["RVV", "EM"]
    assert [name for name, *_ in found.further] == ["SSCS"]
    assert str(found) == (
        "20 evaluations: ROBA's power spectrum is off by 0.40 ± 0.03; nearer: RVV (0.30 ± 0.08 of that), EM (0.70 ± "
        "0.02 of that); further: SSCS (1.5 ± 0.1 of that); diverged: NVV"
    )


def test_nothing_is_ranked_beside_an_error_that_is_not_above_its_noise() -> None:
    (found,) = answers(study({"EM": (0.1, 0.01), "SSCS": (9.0, 0.1), "RVV": (0.3, 0.01)}, sure=False))
    assert found == Answer(20, "ROBA", None, diverged=("NVV",))
    assert "ROBA's weak error is not above its noise: no ranking" in str(found)


def test_a_study_without_references_answers_nothing() -> None:
    results = study({"EM": (0.7, 0.07), "SSCS": (1.5, 0.13), "RVV": (0.7, 0.08)})
    bare = copy.deepcopy(results)
    for scheme in bare["schemes"]:
        for cell in scheme["cells"]:
            cell["weak"] = None
    assert answers(bare) == []
    results["settings"]["against"] = None
    assert answers(results) == []


def test_the_page_says_it_before_the_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    results = study({"EM": (0.7, 0.02), "SSCS": (1.5, 0.12), "RVV": (0.3, 0.08)})
    page = Page(cifar10_page.render(results, photographs(results), {}))
    (said,) = map(str, answers(results))
    text = " ".join(page.text.split())
    assert said in text
    assert text.index(said) < text.index("Verdicts")


def with_verdicts(*verdicts: str) -> dict[str, Any]:
    """The results with these verdicts, scheme by scheme."""
    results = study({"EM": (0.7, 0.02), "SSCS": (1.5, 0.12), "RVV": (0.3, 0.08)})
    for scheme, verdict in zip(results["schemes"], verdicts, strict=True):
        scheme |= {"verdict": verdict, "reason": f"{scheme['name']} for a reason"}
    return results


def test_orders_are_folded_where_none_is_settled_and_stand_where_one_is() -> None:
    """Claim: a reader of the page is not met by a table of nothing, and of the terminal neither: what does not decide
    is named in one line, what does has its own, and the answers of the budgets come last."""
    for verdicts, folded in ((["INCONCLUSIVE"] * 5, True), (["INCONCLUSIVE"] * 4 + ["PASS"], False)):
        results = with_verdicts(*verdicts)
        page = cifar10_page.render(results, photographs(results), {})
        before, _, after = page.partition('<table id="verdicts">')
        assert ("These samples settle no order: 5 of 5 are inconclusive." in before) is folded
        assert (before.count("<details>") > before.count("</details>")) is folded
        assert page.count("<details>") == page.count("</details>")
        assert all(f"{scheme['name']} for a reason" in after for scheme in results["schemes"])


@pytest.mark.parametrize("last", ["INCONCLUSIVE", "FAIL"])
def test_the_terminal_ends_with_the_answers(last: str, capsys: pytest.CaptureFixture[str]) -> None:
    results = with_verdicts(*["INCONCLUSIVE"] * 4, last)
    references = [{"diverged": False} | reference for reference in results["references"]]
    cifar10_study._summary(results | {"references": references, "rounding": {}})
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == str(answers(results)[-1])
    undecided = [scheme["label"] for scheme in results["schemes"] if scheme["verdict"] == "INCONCLUSIVE"]
    line = f"orders: INCONCLUSIVE for {', '.join(undecided)}; the page says of each what would settle it"
    assert said.count(line) == 1
    alone = f"{results['schemes'][-1]['label']}: {last}: {results['schemes'][-1]['name']} for a reason"
    assert (alone in said) is (last == "FAIL")
