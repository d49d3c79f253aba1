import numpy as np
import pytest

from multihead.calibrate import apply_temperatures, fit_temperatures
from multihead.decoding import fit_prior_weights, fit_weights, reweight
from multihead.fitting import Wanted, decoding_gain, fit
from multihead.heads import HEADS
from multihead.labels import decode, encode
from multihead.metrics import score
from multihead.splits import deal
from multihead.voting import fit_vote_weights


@pytest.fixture(scope="module")
def drawn():
    """Two recipes' answers for 60 people with 7 photos each, one surer than it should be, classes of unlike shares."""
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.choice(18, 60, p=rng.dirichlet(np.ones(18))), 7)
    noise = [rng.gumbel(size=(420, 18)) for _ in range(2)]
    logits = [scale * (2.0 * np.eye(18)[truth] + each) for scale, each in zip((1.0, 3.0), noise)]
    probs = [np.exp(each) / np.exp(each).sum(1, keepdims=True) for each in logits]
    return probs, decode(truth, HEADS), np.repeat(np.arange(60), 7)


@pytest.mark.parametrize("calibrate", [False, True])
@pytest.mark.parametrize(("name", "decoder"), [("prior", fit_prior_weights), ("weights", fit_weights)])
def test_all_that_is_wanted_in_turn(drawn, calibrate, name, decoder):
    probs, labels, _ = drawn
    found = fit(probs, labels, HEADS, Wanted(calibrate, None, name))
    temperatures = [fit_temperatures(each, labels, HEADS) if calibrate else {} for each in probs]
    tempered = [apply_temperatures(each, one, HEADS) if one else each for each, one in zip(probs, temperatures)]
    shares = fit_vote_weights(tempered, labels, HEADS)
    mean = shares[0] * tempered[0] + shares[1] * tempered[1]
    assert list(found.temperatures) == temperatures
    np.testing.assert_allclose(found.shares, shares)
    np.testing.assert_allclose(found.mean(probs, HEADS), mean)
    np.testing.assert_allclose(found.answers(probs, HEADS), reweight(mean, decoder(mean, labels, HEADS)))


def test_class_weights_are_of_the_mean_that_is_tempered(drawn):
    probs, labels, _ = drawn
    temperatures = {"mask": 2.0, "gender": 0.5, "age": 3.0}
    found = fit(probs, labels, HEADS, Wanted(shares=(1.0, 1.0), decode="weights", pooled=temperatures))
    mean = apply_temperatures((probs[0] + probs[1]) / 2, temperatures, HEADS)
    np.testing.assert_allclose(found.answers(probs, HEADS), reweight(mean, fit_weights(mean, labels, HEADS)))


def test_nothing_wanted_is_the_given_mean(drawn):
    probs, labels, _ = drawn
    found = fit(probs, labels, HEADS, Wanted(shares=(3.0, 1.0)))
    np.testing.assert_allclose(found.answers(probs, HEADS), 0.75 * probs[0] + 0.25 * probs[1])
    with pytest.raises(ValueError, match="vote: decode is 'magic'; expected one of"):
        Wanted(decode="magic")


def test_the_gain_is_of_people_that_nothing_was_fitted_on(drawn):
    probs, labels, groups = drawn
    wanted = Wanted(True, None, "prior")
    table = decoding_gain(probs, labels, groups, HEADS, wanted).set_index(["arm", "metric"])
    by_hand = {name: np.empty((len(labels), 18)) for name in ("plain", "decoded")}
    fold = deal(groups, labels, [1 / 5] * 5, 0)
    for number in range(5):
        seen, asked = fold != number, fold == number
        fitted = fit([each[seen] for each in probs], labels[seen], HEADS, wanted)
        by_hand["decoded"][asked] = fitted.answers([each[asked] for each in probs], HEADS)
        by_hand["plain"][asked] = fitted.mean([each[asked] for each in probs], HEADS)
    for name, answers in by_hand.items():
        assert table.loc[(name, "macro_f1")]["mean"] == pytest.approx(score(answers, labels, HEADS).f1)
    row = table.loc[("decoded", "macro_f1")]
    f1 = {name: score(answers, labels, HEADS).f1 for name, answers in by_hand.items()}
    assert row["difference"] == pytest.approx(f1["decoded"] - f1["plain"])
    assert row["low"] <= row["high"] and encode(labels, HEADS).min() >= 0
