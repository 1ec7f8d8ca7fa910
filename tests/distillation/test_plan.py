"""What distillation's plans promise, what is in which key, and what is refused before any work."""

from __future__ import annotations

import pytest

from benchmark.plan import config, study
from benchmark.plan.config import ConfigError
from benchmark.plan.deployment import Here
from benchmark.plan.life import lives, place_of, undeployable
from benchmark.plan.task import Model
from benchmark.vision.learning_rate import rate
from methods.baseline import base_training, teacher_training
from tests.distillation.golden import OLDER
from tests.distillation.small import learning, method
from tests.harness.helpers import FAKED, GPU, HERE

PAIR = "pair=resnet14__resnet8"


def _parsed(*words: str, here: Here = GPU):
    return config.parse(config.compose(words), here)[0]


def _life(*words: str, here: Here = GPU):
    parsed = _parsed(*words, here=here)
    return lives(parsed, place_of(parsed, here, []))[0]


def _keys(*words: str) -> list[str]:
    life = _life(*words)
    return [life.key(stage) for _, stage in life.plan.steps]


@pytest.fixture
def full(task):
    """A task of 240 epochs."""
    recipe = task.recipe.model_copy(update={"epochs": 240, "schedule": "multistep", "batch_size": 64})
    return learning(task.model_copy(update={"recipe": recipe}))


# --- stages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "first"), [("kd", []), ("crd", []), ("ab", ["initial"]), ("ft", ["initial"])])
def test_teacher_then_the_initial_stage_then_distillation(full, name, first):
    plan = method(name).plan(full)
    assert [(str(phase), stage.name) for phase, stage in plan.steps] == [
        ("base", "train"), *(("retrain", stage) for stage in first), ("retrain", "distil"),
    ]  # fmt: skip  # a line reads best
    assert plan.network == plan.steps[-1][1]
    assert set(plan.network.inputs) == {"teacher", *first}
    assert plan.steps[0][1] == teacher_training(full)


def test_the_teacher_is_trained_once_for_all_who_learn_from_it_as_by_its_baseline():
    one, other, third = _keys("method=distillation/kd", PAIR), _keys("method=distillation/ft", PAIR), _keys(
        "method=distillation/kd", "model=repdistiller/vgg8", "teacher=repdistiller/resnet14"
    )  # fmt: skip  # a line reads best
    (baseline,) = _keys("method=baseline", "model=repdistiller/resnet14")
    assert one[0] == other[0] == third[0] == baseline


def test_the_teachers_seed_is_the_students_unless_it_is_given(full):
    def keys(**seeds):
        return [stage.key(str) for _, stage in method("kd").plan(full.model_copy(update=seeds)).steps]

    fixed, other = keys(seed=0, teacher_seed=0), keys(seed=1, teacher_seed=0)
    assert (fixed[0] == other[0], fixed[1] != other[1]) == (True, True)
    assert fixed == keys(seed=0)
    assert keys(seed=1)[0] != fixed[0]


def test_what_is_in_which_key(full):
    def keys(name, task=full, **changed):
        return [stage.key(str) for _, stage in method(name, **changed).plan(task).steps]

    kd, ft = keys("kd"), keys("ft")
    assert keys("kd", initial_lr={"resnet8": 0.5}, initial_epochs=0.5) == kd, "kd has no initial stage"
    changed = keys("ft", initial_lr={"resnet*": 0.5})
    assert (changed[0], changed[1] != ft[1], changed[2] != ft[2]) == (ft[0], True, True)
    changed = keys("ft", weights={"kd": 0, "term": 100})
    assert (changed[:2], changed[2] != ft[2]) == (ft[:2], True)
    others = [keys("kd", variant="no_waste"), keys("kd", full.model_copy(update={"profile": "published"})),
              keys("kd", term={"kind": "methods.distillation.kd:KD", "settings": {"temperature": 2}})]  # fmt: skip  # a list
    assert len({kd[1], *(each[1] for each in others)}) == 4
    by_hand = {"kind": "methods.distillation.dkd:DKD", "settings": {"alpha": 1, "beta": 8, "temperature": 4}}
    assert keys("dkd") == keys("dkd", term=by_hand), "what counts is the value, not who chose it"
    assert keys("dkd") != keys("dkd", learning(full, "resnet20", "resnet56")), "another pair is tuned otherwise"


def test_a_setting_that_both_stages_have_is_given_once():
    plan = _life("method=distillation/ft", PAIR, "method.term.settings.rate=0.25").plan
    assert [stage.params.term.settings for _, stage in plan.steps[1:]] == [{"rate": 0.25}] * 2


def test_a_student_trains_by_the_words_of_its_own_recipe():
    life = _life("method=distillation/crd", "pair=resnet32x4__ShuffleV1")
    teacher, student = (stage.params.task for _, stage in life.plan.steps)
    assert (teacher.recipe.lr, student.recipe.lr) == (0.05, 0.01)
    assert student.teacher is None


# --- the learning rate -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "student", "scale", "wanted"),
    [
        ("ab", "resnet8", "full", 0.05),
        ("ab", "MobileNetV2", "full", 0.01),
        ("fsp", "resnet20", "full", 0.05),
        ("ft", "resnet20", "full", 0.01),
        ("ft", "wrn_16_2", "full", 0.01),
        ("ft", "vgg8", "full", 0.05),
        ("ft", "ShuffleV2", "full", 0.01),
        ("ft", "resnet8", "smoke", 1e-4),
        ("ab", "resnet8", "smoke", 0.05),
    ],
)
def test_the_rate_of_the_initial_stage_is_constant(name, student, scale, wanted):
    words = (f"method=distillation/{name}", f"model=repdistiller/{student}", "teacher=repdistiller/resnet14")
    recipe = _life(*words, f"scale={scale}").plan.steps[1][1].params.task.recipe
    assert recipe.epochs == {"full": 30, "smoke": 1}[scale]
    assert {rate(recipe, step, 10) for step in range(10 * recipe.epochs)} == {wanted}


def test_the_rate_of_the_main_stage_is_the_originals():
    for name, pair, original in (
        ("kd", "vgg13__vgg8", "default_0.05"),
        ("ab", "ResNet50__MobileNetV2", "mobile_shuffle_0.01"),
    ):
        recipe = _life(f"method=distillation/{name}", f"pair={pair}").plan.network.params.task.recipe
        assert recipe.epochs == 240
        for epoch, wanted in OLDER["schedule"][original].items():
            assert rate(recipe, (int(epoch) - 1) * 782, 782) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("epochs", "initial"), [(240, 30), (8, 1), (1, 1), (20, 2)])
def test_an_eighth_of_the_epochs_at_least_one_come_first_and_the_main_stage_draws_on(task, epochs, initial):
    recipe = task.recipe.model_copy(update={"epochs": epochs})
    _, (_, first), (_, main) = method("ab").plan(learning(task.model_copy(update={"recipe": recipe}))).steps
    assert first.params.task.recipe.epochs == initial
    assert (first.params.first_epoch, main.params.first_epoch) == (0, initial)
    assert method("kd").plan(learning(task)).network.params.first_epoch == 0


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("method=distillation/kd",), "method distillation/kd: there is no teacher to learn from: give pair= or"),
        (("method=distillation/kd", PAIR, "method.variant=lean"), "'as_shipped' or 'no_waste'"),
        (("method=distillation/kd", PAIR, "method.weights.term=-1"), "method.weights.term: .* greater than or equal"),
        (("method=distillation/ft", PAIR, "method.initial_lr={resnet*: 0}"), "initial_lr.resnet.*: .* greater than 0"),
        (("method=distillation/kd", PAIR, "method.weights.term=null"), "weights.term: nothing is tuned for resnet14 -> "),
        (("method=distillation/crd", PAIR, "+method.settings.tau=1"), "method.settings: unknown name"),
    ],
)  # fmt: skip  # a case a line
def test_wrong_words_are_refused_in_a_line(words, wanted):
    with pytest.raises(ConfigError, match=wanted) as refused:
        _parsed(*words)
    assert "\n" not in str(refused.value)


NNI = Model(name="nni/vgg13", builder="benchmark.vision.models.nni.vgg:vgg13")
NOWHERE = Model(name="nowhere", builder="no.where:net")


def _with(task, part: str, **changed):
    return task.model_copy(update={part: getattr(task, part).model_copy(update=changed)})


@pytest.mark.parametrize(
    ("name", "change", "wanted"),
    [
        ("fsp", lambda t: learning(t, teacher="resnet8x4"), "FSP compares maps channel by channel"),
        ("crd", lambda t: t.model_copy(update={"teacher": NNI}), "the teacher exposes none"),
        ("at", lambda t: t.model_copy(update={"model": NNI}), "the student exposes none"),
        ("kd", lambda t: t.model_copy(update={"teacher": NOWHERE}), "model nowhere cannot be built"),
        ("kd", lambda t: t.model_copy(update={"model": NOWHERE}), "model nowhere cannot be built"),
        ("kd", lambda t: _with(t, "recipe", label_smoothing=0.1), "use recipe.label_smoothing=0"),
        ("cc", lambda t: _with(t, "scale", train_images=65), "needs 2 in a batch, but the last .* hold 1: "),
        ("rkd", lambda t: _with(t, "recipe", batch_size=1), "needs 2 in a batch"),
        ("reviewkd", lambda t: _with(t, "scale", train_images=1), "needs 2 in a batch"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_training(name, change, wanted, task):
    with pytest.raises(ValueError, match=wanted):
        method(name).check(change(learning(task)))


@pytest.mark.parametrize(
    ("term", "wanted"),
    [
        ({"kind": "methods.distillation.kd:KD", "settings": {"tau": 1}}, "settings of .*KD: tau: Extra inputs"),
        ({"kind": "methods.distillation.kd:DK"}, "no term of that name"),
        ({"kind": "methods.distillation.nowhere:KD"}, "No module named"),
    ],
)
def test_so_is_a_term_that_is_none(term, wanted, task):
    with pytest.raises(ValueError, match=wanted):
        method("kd", term=term).check(learning(task))


def test_what_looks_at_logits_alone_does_with_any_two_networks_and_any_batch(task):
    odd = _with(learning(task), "scale", train_images=66)
    assert method("dist").check(odd.model_copy(update={"model": NNI})) is None
    assert method("kd").check(odd.model_copy(update={"teacher": NNI})) is None


# --- what comes after ------------------------------------------------------------------------------------------------


def test_a_distilled_student_can_be_quantized_where_an_engine_has_int8():
    words = ("method=distillation/kd", PAIR, "deploy_precision=int8")
    life, plain = _life(*words, here=FAKED), _life(*words[:2], here=FAKED)
    phase, calibration = life.plan.steps[-1]
    assert (str(phase), calibration.inputs) == ("compress", {"network": plain.plan.network})
    assert [life.key(stage) for _, stage in life.plan.steps[:-1]] == [plain.key(stage) for _, stage in plain.plan.steps]
    assert "torch has no INT8 convolutions" in undeployable(_life(*words, "engine=torch"), GPU)


@pytest.mark.slow
def test_the_study_has_what_exists_and_shares_its_teachers():
    jobs = [tuple(job) for block in study.expand("distillation") for job in block.jobs]
    assert len(jobs) == len(set(jobs)) == 13 * 13 - 7 + 13
    assert all("teacher_seed=0" in job for job in jobs)
    newer = [job for block in study.expand("distillation_newer") for job in block.jobs]
    assert len(newer) == 5 * 13
    some = [next(job for job in jobs if {f"method=distillation/{m}", f"pair={p}"} <= set(job)) for m, p in (
        ("kd", "resnet110__resnet20"), ("fsp", "resnet110__resnet32"), ("crd_kd", "resnet110__resnet32"),
    )]  # fmt: skip  # a line reads best
    assert len({_keys(*job, "seed=5")[0] for job in some}) == 1
    (alone,) = _keys("model=repdistiller/resnet110")
    assert {_keys(*job, "seed=5")[0] for job in some} == {alone}


def test_a_deployment_changes_no_key_of_training(full):
    half = full.model_copy(update={"deploy_precision": "fp16"})
    one, other = (method("ft").plan(each) for each in (full, half))
    assert [stage for _, stage in one.steps] == [stage for _, stage in other.steps]
    assert base_training(half) == base_training(full)
    assert HERE.machine(other.steps[0][0]) == "here"
