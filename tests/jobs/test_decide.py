"""What follows from facts: the state machine of contract 2, fact by fact. The expectations are written out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from service.errors import Conflict, NotFound
from service.jobs.row import JobRow
from service.jobs.transitions.decide import decide
from service.jobs.transitions.draft import Draft
from service.jobs.transitions.facts import (
    CallbackHeard,
    CancelAsked,
    DeadlinePassed,
    Fact,
    OverdueNoticed,
    Polled,
    ResubmitAsked,
    SubmitAbandoned,
    SubmitAnswered,
    SubmitBegun,
)
from service.polling.pace import Rules
from service.providers.client import PollOutcome, PollVerdict, SubmitOutcome, Verdict
from service.providers.mapping import Money, Observation, Seen
from service.states import ErrorCode, JobStatus

NOW = 1_795_000_000_000
DAY = 86_400_000
RULES = Rules(can_poll=True, called_back=True, fallback_after_ms=60_000, poll_every_ms=3_000)
BLIND = Rules(can_poll=False, called_back=True)
DONE = Observation(
    seen=Seen.COMPLETED, task_id="t1", provider_status="completed", urls=("https://files.example/1.png",)
)
FAILED = Observation(seen=Seen.FAILED, task_id="t1", provider_status="failed", error_message="out of paint")
PROCESSING = Observation(seen=Seen.RUNNING, task_id="t1", provider_status="processing")
EMPTY = replace(DONE, urls=())


def draft(status: JobStatus, **columns: Any) -> Draft:
    """A valid job in that state; a test names only what matters."""
    active = status in {JobStatus.QUEUED, JobStatus.SUBMITTING, JobStatus.SUBMIT_UNKNOWN, JobStatus.RUNNING}
    given: dict[str, Any] = {
        "id": "job_1",
        "account_id": "acc_1",
        "provider": "apimodels",
        "operation": "generate",
        "status": status,
        "created_at": NOW - 10_000,
        "expires_at": NOW + 7 * DAY,
        "seq": 1,
        "due_at": NOW if active else None,
        "finished_at": None if active else NOW - 1,
        "lease_owner": "me",
        "lease_until": NOW + 60_000,
        "lease_epoch": 3,
        "cost_estimated": 10_000,
        "cost_basis": "price_list",
    }
    if status is not JobStatus.QUEUED:
        given |= {"submission_id": "sbm_1"}
    if status in {JobStatus.RUNNING, JobStatus.COMPLETED}:
        given |= {"provider_task_id": "t1", "submitted_at": NOW - 9_000}
    job = JobRow(**(given | columns))
    return Draft(job, NOW, lambda job_id, idx: f"https://remora.example/r/{job_id}/{idx}")


def types(made: Draft) -> list[str]:
    """What was noted, in order."""
    return [noted.type for noted in made.notes]


def answered(outcome: SubmitOutcome) -> SubmitAnswered:
    return SubmitAnswered("job_1", "sbm_1", 3, outcome)


def heard(
    observation: Observation, *, evidence: bool = False, submission: str = "sbm_1", adoptable: bool = True
) -> CallbackHeard:
    return CallbackHeard("job_1", submission, observation, evidence, NOW, adoptable)


def polled(observation: Observation | None = None, verdict: PollVerdict = PollVerdict.OBSERVED, **more: Any) -> Polled:
    return Polled("job_1", "sbm_1", more.pop("epoch", 3), PollOutcome(verdict, observation, **more))


# -- submitting ------------------------------------------------------------------------------------------------------


def test_submit_begins_under_its_lease_and_records_the_token() -> None:
    """Intent and token are written before anything leaves; the lease outlasts the request."""
    made = draft(JobStatus.QUEUED)
    done = decide(made, SubmitBegun("job_1", 3, "sbm_9", b"hash", 90_000), RULES)

    assert done is True
    assert made.job.status is JobStatus.SUBMITTING
    assert made.new_submission is not None
    assert (made.new_submission["id"], made.new_submission["token_hash"]) == ("sbm_9", b"hash")
    assert made.job.lease_until == made.job.due_at == NOW + 90_000
    assert made.job.lease_owner == "me"


@pytest.mark.parametrize(
    ("status", "columns"),
    [
        (JobStatus.CANCELLED, {}),
        (JobStatus.RUNNING, {}),
        (JobStatus.QUEUED, {"lease_epoch": 4}),
        (JobStatus.QUEUED, {"expires_at": NOW}),
    ],
)
def test_submit_does_not_begin_for_whom_the_job_is_lost(status: JobStatus, columns: dict[str, Any]) -> None:
    """Cancelled, already sent, somebody else's, or past its deadline: nothing leaves."""
    made = draft(status, **columns)
    done = decide(made, SubmitBegun("job_1", 3, "sbm_9", b"hash", 90_000), RULES)

    assert done is False
    assert made.new_submission is None


def test_accepted_submit_runs_and_waits_for_its_callback_first() -> None:
    """The task id is kept, both events are announced, and the first poll is the fallback."""
    made = draft(JobStatus.SUBMITTING)
    pending = Observation(seen=Seen.QUEUED, task_id="t1", provider_status="pending")
    decide(made, answered(SubmitOutcome(Verdict.ACCEPTED, pending)), RULES)

    assert made.job.status is JobStatus.RUNNING
    assert (made.job.provider_task_id, made.job.provider_status) == ("t1", "pending")
    assert types(made) == ["job.submitted", "job.running"]
    assert made.job.due_at == NOW + 60_000
    assert made.job.lease_owner is None


def test_accepted_submit_that_is_already_done_completes() -> None:
    """A terminal answer to the submit is final, resolved by the response."""
    made = draft(JobStatus.SUBMITTING)
    decide(made, answered(SubmitOutcome(Verdict.ACCEPTED, DONE)), RULES)

    assert made.job.status is JobStatus.COMPLETED
    assert made.job.resolved_by == "response"
    assert [result.source_url for result in made.results] == ["https://files.example/1.png"]
    assert types(made) == ["job.submitted", "job.completed"]
    assert made.job.due_at is None


@pytest.mark.parametrize("verdict", [Verdict.REFUSED, Verdict.NOT_SENT])
def test_refused_or_unsent_submit_goes_back_to_the_queue(verdict: Verdict) -> None:
    """Provably without effect: the job waits, honouring Retry-After, and may be sent again."""
    made = draft(JobStatus.SUBMITTING, submit_tries=1)
    outcome = SubmitOutcome(verdict, error_code=ErrorCode.RATE_LIMITED, http_status=429, retry_after_s=30)
    decide(made, answered(outcome), RULES)

    assert made.job.status is JobStatus.QUEUED
    assert made.job.due_at == NOW + 30_000
    assert types(made) == [f"submit.{verdict.value}"]


def test_job_that_a_pausing_provider_refused_keeps_its_place() -> None:
    """The provider waits, not the job: it must not fall behind what came later."""
    made = draft(JobStatus.SUBMITTING, created_at=NOW - 5_000)
    outcome = SubmitOutcome(Verdict.REFUSED, error_code=ErrorCode.RATE_LIMITED, http_status=429, retry_after_s=30)
    decide(made, replace(answered(outcome), pause_s=30.0), RULES)

    assert made.job.status is JobStatus.QUEUED
    assert made.job.due_at == NOW - 5_000
    assert b'"retry_in_s":30.0' in (made.notes[0].detail or "").encode()


@pytest.mark.parametrize(
    "after",
    [
        SubmitOutcome(Verdict.ACCEPTED, Observation(seen=Seen.QUEUED, task_id="t1")),
        SubmitOutcome(Verdict.UNKNOWN, message="cut"),
        SubmitOutcome(Verdict.REJECTED, error_code=ErrorCode.PROVIDER_FUNDS),
    ],
)
def test_refusals_are_counted_until_something_else_comes(after: SubmitOutcome) -> None:
    """Each verdict has one row for all its tries in a row; what follows later begins anew."""
    refused = SubmitOutcome(Verdict.REFUSED, error_code=ErrorCode.RATE_LIMITED, http_status=429)
    unsent = SubmitOutcome(Verdict.NOT_SENT, message="refused")
    refusals: str | None = None
    repeats: list[bool] = []
    for outcome in (refused, refused, unsent, refused, unsent):
        made = draft(JobStatus.SUBMITTING, refusals=refusals)
        decide(made, answered(outcome), RULES)
        refusals = made.job.refusals
        repeats.append(made.notes[0].repeats)
    counts = msgspec.json.decode(refusals or "{}")
    ended = draft(JobStatus.SUBMITTING, refusals=refusals)
    decide(ended, answered(after), RULES)

    assert repeats == [False, True, False, True, True]
    assert {verdict: each["count"] for verdict, each in counts.items()} == {"refused": 3, "not_sent": 2}
    assert ended.job.refusals is None


@pytest.mark.parametrize("seen", [Seen.FAILED, Seen.CANCELLED])
@pytest.mark.parametrize("evidence", [True, False])
def test_refused_submission_that_also_calls_back_as_failed_is_tried_again(seen: Seen, *, evidence: bool) -> None:
    """Some providers report a refusal twice; the job waits for its next try all the same."""
    made = draft(JobStatus.QUEUED, submission_id="sbm_1", due_at=NOW + 5_000)
    decide(made, heard(Observation(seen=seen, task_id="t1"), evidence=evidence), RULES)

    assert made.job.status is JobStatus.QUEUED
    assert made.job.due_at == NOW + 5_000
    assert types(made) == ["callback.received"]


def test_broken_provider_gets_three_tries_in_all() -> None:
    """A documented retryable 5xx is tried three times, then the job fails."""
    outcome = SubmitOutcome(Verdict.REFUSED, error_code=ErrorCode.PROVIDER_UNAVAILABLE, http_status=502)
    second = draft(JobStatus.SUBMITTING, submit_failures=1)
    decide(second, answered(outcome), RULES)
    third = draft(JobStatus.SUBMITTING, submit_failures=2)
    decide(third, answered(outcome), RULES)

    assert second.job.status is JobStatus.QUEUED
    assert third.job.status is JobStatus.FAILED
    assert third.job.error_code == "provider_unavailable"


def test_rate_limits_are_waited_out_however_often() -> None:
    """429 is tried until the deadline."""
    made = draft(JobStatus.SUBMITTING, submit_tries=500, submit_failures=2)
    decide(made, answered(SubmitOutcome(Verdict.REFUSED, error_code=ErrorCode.RATE_LIMITED, http_status=429)), RULES)

    assert made.job.status is JobStatus.QUEUED


def test_rejected_submit_fails_with_the_providers_reason() -> None:
    """A final refusal is the end, with our code and its words."""
    made = draft(JobStatus.SUBMITTING)
    decide(
        made,
        answered(SubmitOutcome(Verdict.REJECTED, error_code=ErrorCode.PROVIDER_FUNDS, message="no credits")),
        RULES,
    )

    assert made.job.status is JobStatus.FAILED
    assert (made.job.error_code, made.job.error_message) == ("provider_funds", "no credits")
    assert made.job.cost_charged is None


@pytest.mark.parametrize(
    ("fact", "cause"),
    [
        (answered(SubmitOutcome(Verdict.UNKNOWN, message="cut", cause="timeout")), "timeout"),
        (answered(SubmitOutcome(Verdict.UNKNOWN, message="answered 502", http_status=502)), "http_502"),
        (SubmitAbandoned("job_1", "sbm_1"), "stopped"),
    ],
)
def test_submit_without_an_answer_is_unknown_and_stays_so(fact: Fact, cause: str) -> None:
    """Cut off or left by a crash: submit_unknown at once, woken by nothing but the deadline."""
    made = draft(JobStatus.SUBMITTING)
    decide(made, fact, RULES)

    assert made.job.status is JobStatus.SUBMIT_UNKNOWN
    assert made.job.due_at == made.job.expires_at
    assert types(made) == ["job.submit_unknown"]
    assert made.cause == cause


# -- callbacks -------------------------------------------------------------------------------------------------------


def test_unsigned_callback_makes_one_fetch_due_at_once() -> None:
    """A callback is a hint: nothing changes but the wake-up, and ten of them ask once."""
    made = draft(JobStatus.RUNNING, due_at=NOW + 60_000)
    for _ in range(10):
        decide(made, heard(DONE), RULES)

    assert made.job.status is JobStatus.RUNNING
    assert made.job.due_at == NOW
    assert made.job.callbacks == 10
    assert types(made) == ["callback.received"] * 10


def test_true_callback_after_a_forged_one_is_followed_at_once() -> None:
    """The forged one was looked into and waits for its next try; the true one does not have to wait for that."""
    made = draft(JobStatus.RUNNING, hint_at=NOW, hint_tries=3, due_at=NOW + 15_000, lease_owner=None, lease_until=None)
    decide(made, heard(DONE), RULES)

    assert made.job.due_at == NOW


def test_flood_of_callbacks_does_not_become_a_flood_of_fetches() -> None:
    """After a hundred callbacks further ones wait for the tries that are planned."""
    made = draft(JobStatus.RUNNING, hint_at=NOW, callbacks=100, due_at=NOW + 15_000, lease_owner=None, lease_until=None)
    decide(made, heard(DONE), RULES)

    assert made.job.due_at == NOW + 15_000


def test_callback_that_is_evidence_completes_the_job() -> None:
    """Trusted, signed or without a way to ask: the observation is the fact."""
    made = draft(JobStatus.RUNNING)
    decide(made, heard(DONE, evidence=True), RULES)

    assert made.job.status is JobStatus.COMPLETED
    assert made.job.resolved_by == "callback"
    assert made.job.cost_charged == 10_000


def test_trusted_callback_about_another_task_changes_nothing_and_asks() -> None:
    """A wrong task id is a conflict; the stored task is asked for."""
    made = draft(JobStatus.RUNNING, due_at=NOW + 60_000)
    decide(made, heard(replace(DONE, task_id="other"), evidence=True), RULES)

    assert made.job.status is JobStatus.RUNNING
    assert types(made) == ["callback.received", "job.conflict"]
    assert made.job.due_at == NOW


def test_early_callback_waits_for_the_submits_answer_and_is_then_followed() -> None:
    """A callback before the submit's answer is kept, and makes a fetch due as soon as the answer is there."""
    made = draft(JobStatus.SUBMITTING, due_at=NOW + 90_000)
    decide(made, heard(DONE), RULES)
    waiting = (made.job.status, made.job.due_at, made.job.provider_task_id)
    decide(made, answered(SubmitOutcome(Verdict.ACCEPTED, replace(PROCESSING, seen=Seen.QUEUED))), RULES)

    assert waiting == (JobStatus.SUBMITTING, NOW + 90_000, None)
    assert made.job.status is JobStatus.RUNNING
    assert made.job.due_at == NOW


def test_early_callback_heals_a_submit_that_was_cut() -> None:
    """No answer, but a callback with the token: the id is adopted provisionally and a fetch has to confirm it."""
    made = draft(JobStatus.SUBMITTING)
    decide(made, heard(DONE), RULES)
    decide(made, answered(SubmitOutcome(Verdict.UNKNOWN)), RULES)

    assert made.job.status is JobStatus.SUBMIT_UNKNOWN
    assert (made.job.provider_task_id, made.job.task_confirmed) == ("t1", 0)
    assert made.job.due_at == NOW


@pytest.mark.parametrize("evidence", [False, True])
def test_early_callback_that_says_failed_adds_nothing_to_a_refusal(*, evidence: bool) -> None:
    """Whichever comes first: the job is tried again or fails, and does not wait until its deadline for somebody to decide."""
    failed = replace(PROCESSING, seen=Seen.FAILED)
    refused, rejected = draft(JobStatus.SUBMITTING), draft(JobStatus.SUBMITTING)
    decide(refused, heard(failed, evidence=evidence), RULES)
    decide(rejected, heard(failed, evidence=evidence), RULES)
    decide(refused, answered(SubmitOutcome(Verdict.REFUSED, error_code=ErrorCode.RATE_LIMITED, http_status=429)), RULES)
    decide(
        rejected, answered(SubmitOutcome(Verdict.REJECTED, error_code=ErrorCode.INVALID_INPUT, http_status=400)), RULES
    )

    assert refused.job.status is JobStatus.QUEUED
    assert (rejected.job.status, rejected.job.error_code) == (JobStatus.FAILED, "invalid_input")


def test_early_callback_that_says_nothing_gives_way() -> None:
    """A garbled one that came first does not hide the id that the next one names."""
    job = draft(JobStatus.SUBMITTING, submission_id="sbm_1")
    decide(job, CallbackHeard("job_1", "sbm_1", Observation(None, fault="is no JSON"), False, NOW), RULES)
    decide(job, CallbackHeard("job_1", "sbm_1", PROCESSING, False, NOW), RULES)

    decide(job, SubmitAnswered("job_1", "sbm_1", 3, SubmitOutcome(Verdict.UNKNOWN)), RULES)

    assert (job.job.status, job.job.provider_task_id, job.job.due_at) == (JobStatus.SUBMIT_UNKNOWN, "t1", NOW)


def test_early_callback_overrules_a_refusal() -> None:
    """The token proves that the provider took what it seemed to refuse: never sent again by itself."""
    made = draft(JobStatus.SUBMITTING)
    decide(made, heard(DONE), RULES)
    decide(made, answered(SubmitOutcome(Verdict.REFUSED, error_code=ErrorCode.RATE_LIMITED, http_status=429)), RULES)

    assert made.job.status is JobStatus.SUBMIT_UNKNOWN


@pytest.mark.parametrize("says", [Observation(None), Observation(None, "t1"), PROCESSING, DONE])
@pytest.mark.parametrize("evidence", [False, True])
def test_late_callback_overrules_a_refusal(says: Observation, *, evidence: bool) -> None:
    """A job that waits in the queue after a refusal is not sent again once its provider calls back about it."""
    job = draft(JobStatus.QUEUED, submission_id="sbm_1", due_at=NOW + 5_000)

    decide(job, CallbackHeard("job_1", "sbm_1", says, evidence, NOW), RULES)

    believed = {Seen.RUNNING: JobStatus.RUNNING, Seen.COMPLETED: JobStatus.COMPLETED}
    assert job.job.status is (believed[says.seen] if evidence and says.seen else JobStatus.SUBMIT_UNKNOWN)
    assert job.job.provider_task_id == says.task_id


def test_forged_callback_stops_no_queued_job() -> None:
    """One whose signature does not fit proves nothing of what the provider took."""
    forged = CallbackHeard("job_1", "sbm_1", Observation(None), False, NOW, signed=False)
    queued, submitting = draft(JobStatus.QUEUED, submission_id="sbm_1", due_at=NOW + 5_000), draft(JobStatus.SUBMITTING)
    decide(queued, forged, RULES)
    decide(submitting, forged, RULES)
    decide(submitting, answered(SubmitOutcome(Verdict.REFUSED, error_code=ErrorCode.RATE_LIMITED)), RULES)

    assert queued.job.status is JobStatus.QUEUED
    assert submitting.job.status is JobStatus.QUEUED


def test_part_of_an_answer_that_names_the_task_heals_the_submit() -> None:
    """The id of a broken answer is asked for like any other, unconfirmed, and the answer's head is on the timeline."""
    job = draft(JobStatus.SUBMITTING, submission_id="sbm_1")
    outcome = SubmitOutcome(
        Verdict.UNKNOWN, Observation(None, "t1"), message="its body is broken", head="HTTP/1.1 200 OK"
    )

    decide(job, SubmitAnswered("job_1", "sbm_1", 3, outcome), RULES)

    assert (job.job.status, job.job.provider_task_id, job.job.task_confirmed) == (JobStatus.SUBMIT_UNKNOWN, "t1", 0)
    assert job.job.due_at == NOW + 60_000
    assert msgspec.json.decode(job.notes[-1].detail or "")["head"] == "HTTP/1.1 200 OK"


def test_part_of_an_answer_is_taken_after_the_lease_ran_out() -> None:
    """Nobody waited for it any more; the id that it names is asked for all the same, and nothing is told twice."""
    job = draft(JobStatus.SUBMIT_UNKNOWN, submission_id="sbm_1", due_at=NOW + 7 * DAY)

    decide(job, SubmitAnswered("job_1", "sbm_1", 3, SubmitOutcome(Verdict.UNKNOWN, Observation(None, "t1"))), RULES)

    assert (job.job.status, job.job.provider_task_id, job.job.due_at) == (JobStatus.SUBMIT_UNKNOWN, "t1", NOW + 60_000)
    assert job.notes == []


def test_part_of_an_answer_waits_for_the_deadline_where_nobody_can_be_asked() -> None:
    """Without a poll the id alone decides nothing."""
    job = draft(JobStatus.SUBMITTING, submission_id="sbm_1")

    decide(job, SubmitAnswered("job_1", "sbm_1", 3, SubmitOutcome(Verdict.UNKNOWN, Observation(None, "t1"))), BLIND)

    assert (job.job.status, job.job.due_at) == (JobStatus.SUBMIT_UNKNOWN, job.job.expires_at)


def test_fetch_confirms_what_a_callback_healed() -> None:
    """The adopted id answers completed: the job completes, resolved by the callback that told us."""
    made = draft(JobStatus.SUBMIT_UNKNOWN, provider_task_id="t1", task_confirmed=0, hint_at=NOW)
    decide(made, polled(DONE), RULES)

    assert made.job.status is JobStatus.COMPLETED
    assert (made.job.resolved_by, made.job.task_confirmed) == ("callback", 1)


def test_adopted_id_that_leads_nowhere_is_dropped() -> None:
    """404 for an unconfirmed id: as if it had never been said."""
    made = draft(JobStatus.SUBMIT_UNKNOWN, provider_task_id="forged", task_confirmed=0, hint_at=NOW)
    decide(made, polled(verdict=PollVerdict.NOT_FOUND), RULES)

    assert made.job.status is JobStatus.SUBMIT_UNKNOWN
    assert made.job.provider_task_id is None
    assert made.job.due_at == made.job.expires_at


def test_id_of_another_submission_is_not_adopted() -> None:
    """A forged callback cannot point one job at another one's task."""
    made = draft(JobStatus.SUBMIT_UNKNOWN)
    decide(made, heard(DONE, adoptable=False), RULES)

    assert made.job.provider_task_id is None


def test_callback_without_a_way_to_ask_heals_by_its_token() -> None:
    """Where the provider has no poll endpoint the token is the evidence."""
    made = draft(JobStatus.SUBMIT_UNKNOWN)
    decide(made, heard(DONE, evidence=True), BLIND)

    assert made.job.status is JobStatus.COMPLETED


def test_same_final_state_again_changes_nothing_and_another_is_a_conflict() -> None:
    """Repeats are counted; contradictions are recorded, unverified ones without a fetch."""
    repeat, contradiction = draft(JobStatus.COMPLETED), draft(JobStatus.COMPLETED)
    decide(repeat, heard(DONE), RULES)
    decide(contradiction, heard(FAILED), RULES)

    assert types(repeat) == ["callback.received"]
    assert types(contradiction) == ["callback.received", "job.conflict"]
    assert msgspec.json.decode(contradiction.notes[1].detail or "")["verified"] is False
    assert contradiction.job.due_at is None
    assert contradiction.job.status is JobStatus.COMPLETED


def test_callback_flood_leaves_a_bounded_timeline() -> None:
    """A thousand callbacks are counted, a hundred are noted."""
    made = draft(JobStatus.COMPLETED)
    for _ in range(1_000):
        decide(made, heard(DONE), RULES)

    assert made.job.callbacks == 1_000
    assert len(made.notes) == 100


def test_completion_of_a_replaced_submission_is_a_conflict_and_its_cost_is_booked() -> None:
    """The earlier submission did work after all: recorded, paid for, and the job goes its own way."""
    made = draft(JobStatus.RUNNING, submission_id="sbm_2")
    paid = replace(DONE, cost=Money(40_000, "provider"))
    decide(made, heard(paid, evidence=True, submission="sbm_1"), RULES)

    assert made.job.status is JobStatus.RUNNING
    assert types(made) == ["callback.received", "job.conflict"]
    assert made.job.cost_charged == 40_000


def test_completion_after_a_free_failure_is_booked() -> None:
    """The zero of the failure is no booking; what is charged then stays."""
    made = draft(JobStatus.RUNNING)
    free = replace(FAILED, cost=Money(0, "price_list"))
    decide(made, heard(free, evidence=True), RULES)
    assert (made.job.status, made.job.cost_charged) == (JobStatus.FAILED, 0)
    decide(made, heard(replace(DONE, cost=Money(40_000, "provider", "$0.04")), evidence=True), RULES)
    decide(made, heard(replace(DONE, cost=Money(90_000, "provider")), evidence=True), RULES)

    assert (made.job.status, made.job.cost_charged) == (JobStatus.FAILED, 40_000)
    assert (made.job.cost_basis, made.job.cost_raw) == ("provider", "$0.04")


def test_free_completion_stays_free() -> None:
    """Nobody takes the zero of a completion for that of a failure."""
    made = draft(JobStatus.RUNNING)
    decide(made, heard(replace(DONE, cost=Money(0, "provider")), evidence=True), RULES)
    lie = replace(FAILED, seen=Seen.COMPLETED, urls=DONE.urls, cost=Money(90_000, "provider"))
    decide(made, heard(lie, evidence=True, submission="sbm_0"), RULES)

    assert made.job.cost_charged == 0


@pytest.mark.parametrize(
    ("price", "told", "at_the_end", "charged"),
    [(None, 7_000, None, 7_000), (None, 7_000, 9_000, 9_000), (None, 0, None, None), (10_000, 7_000, None, 10_000)],
)
def test_cost_of_the_submits_answer_stands_in_for_a_price(
    price: int | None, told: int, at_the_end: int | None, charged: int | None
) -> None:
    """It is charged on completion if there is no better figure; a zero before the work is none."""
    made = draft(JobStatus.SUBMITTING, cost_estimated=price)
    taken = replace(PROCESSING, cost=Money(told, "provider", str(told)))
    decide(made, answered(SubmitOutcome(Verdict.ACCEPTED, taken)), RULES)
    assert made.job.cost_charged is None
    done = DONE if at_the_end is None else replace(DONE, cost=Money(at_the_end, "provider"))
    decide(made, heard(done, evidence=True), RULES)

    assert made.job.cost_charged == charged


# -- polling ---------------------------------------------------------------------------------------------------------


def test_poll_finds_what_the_callback_lost() -> None:
    """Completed by a poll, without any callback."""
    made = draft(JobStatus.RUNNING)
    decide(made, polled(DONE), RULES)

    assert made.job.status is JobStatus.COMPLETED
    assert (made.job.resolved_by, made.job.polls) == ("poll", 1)


def test_poll_of_a_running_task_plans_the_next_one() -> None:
    """Still running: kept, with the provider's own word, and asked again later."""
    made = draft(JobStatus.RUNNING, submitted_at=NOW - 400_000)
    decide(made, polled(PROCESSING), RULES)

    assert made.job.status is JobStatus.RUNNING
    assert made.job.provider_status == "processing"
    assert made.job.due_at == NOW + 100_000  # a quarter of its age


def test_stale_poller_brings_its_fact_but_schedules_nothing() -> None:
    """The lease moved on: an observation is a fact all the same, the wake-up belongs to the new owner."""
    running, done = draft(JobStatus.RUNNING, due_at=NOW + 5), draft(JobStatus.RUNNING, due_at=NOW + 5)
    decide(running, polled(PROCESSING, epoch=2), RULES)
    decide(done, polled(DONE, epoch=2), RULES)

    assert (running.job.due_at, running.job.lease_owner) == (NOW + 5, "me")
    assert done.job.status is JobStatus.COMPLETED


def test_hinted_fetch_asks_again_after_1_2_5_and_15_seconds() -> None:
    """The callback was ahead of the provider's own database: a few quick tries, then the usual pace."""
    made = draft(JobStatus.RUNNING, hint_at=NOW, submitted_at=NOW - 400_000)
    waits = []
    for _ in range(5):
        made.job.lease_owner = "me"
        decide(made, polled(PROCESSING), RULES)
        waits.append((made.job.due_at or 0) - NOW)

    assert waits == [1_000, 2_000, 5_000, 15_000, 100_000]
    assert made.job.hint_at is None


def test_404_right_after_submitting_is_tolerated_then_final() -> None:
    """Replication lag for a minute; afterwards, for about an hour, the provider's word that there is no such task."""
    lag = draft(JobStatus.RUNNING, submitted_at=NOW - 30_000, poll_failures=5)
    decide(lag, polled(verdict=PollVerdict.NOT_FOUND, http_status=404), RULES)
    gone = draft(JobStatus.RUNNING, submitted_at=NOW - 61_000, not_found_polls=13)
    troubled = draft(JobStatus.RUNNING, submitted_at=NOW - 61_000, poll_failures=9)
    decide(troubled, polled(verdict=PollVerdict.NOT_FOUND, http_status=404), RULES)
    decide(gone, polled(verdict=PollVerdict.NOT_FOUND, http_status=404), RULES)

    assert lag.job.status is JobStatus.RUNNING
    assert troubled.job.status is JobStatus.RUNNING  # the failures before were no 404s
    assert gone.job.status is JobStatus.FAILED
    assert gone.job.error_code == "provider_failed"


def test_gateway_that_answers_404_for_minutes_costs_no_result() -> None:
    """The waits between such polls add up to an hour before the job is given up."""
    made, waited_ms = draft(JobStatus.RUNNING, submitted_at=NOW - 61_000), 0
    while made.job.status is JobStatus.RUNNING:
        made.job.lease_owner = "me"
        decide(made, polled(verdict=PollVerdict.NOT_FOUND, http_status=404), RULES)
        waited_ms += max(0, (made.job.due_at or 0) - NOW)

    assert 3_000_000 < waited_ms < 5_400_000


def test_failing_polls_back_off_and_change_nothing() -> None:
    """A poll that fails says nothing about the job."""
    made = draft(JobStatus.RUNNING)
    waits = []
    for _ in range(3):
        made.job.lease_owner = "me"
        decide(made, polled(verdict=PollVerdict.RETRY, http_status=500), RULES)
        waits.append((made.job.due_at or 0) - NOW)

    assert made.job.status is JobStatus.RUNNING
    assert waits == [2_000, 4_000, 8_000]


def test_completion_without_a_file_is_asked_again_for_five_minutes_then_fails() -> None:
    """Completion without a result URL is not completion."""
    made = draft(JobStatus.RUNNING)
    decide(made, polled(EMPTY), RULES)
    first = (made.job.status, made.job.due_at)
    made.now_ms = NOW + 300_000
    made.job.lease_owner = "me"
    decide(made, polled(EMPTY), RULES)

    assert first == (JobStatus.RUNNING, NOW + 15_000)
    assert made.job.status is JobStatus.FAILED
    assert made.job.error_code == "result_missing"


def test_bad_result_beside_a_good_one_is_shown_with_its_error() -> None:
    """The job is completed and charged; what has no URL keeps its place, and a row of the timeline tells why."""
    made = draft(JobStatus.RUNNING)
    decide(made, polled(replace(DONE, not_urls=(0, 2), left_out=5)), RULES)
    rows = [(result.idx, result.source_url, result.error) for result in made.results]
    lost = [(noted.type, msgspec.json.decode(noted.detail or "null")) for noted in made.notes[-3:]]

    assert (made.job.status, made.job.result_count, made.job.cost_charged) == (JobStatus.COMPLETED, 3, 10_000)
    assert rows == [(0, "", "url_invalid"), (1, "https://files.example/1.png", None), (2, "", "url_invalid")]
    assert types(made)[-4:] == ["job.completed", "result.lost", "result.lost", "result.lost"]
    assert lost == [
        ("result.lost", {"index": 0, "reason": "url_invalid"}),
        ("result.lost", {"index": 2, "reason": "url_invalid"}),
        ("result.lost", {"reason": "too_many", "count": 5}),
    ]


def test_completion_with_bad_results_alone_is_asked_again_and_says_why() -> None:
    """No URL is no result: asked again as where nothing stands, then failed, with the reason at both."""
    made = draft(JobStatus.RUNNING)
    decide(made, polled(replace(EMPTY, not_urls=(0, 1))), RULES)
    waiting = (made.job.status, made.job.due_at, made.notes[-1].type, made.notes[-1].detail)
    made.now_ms = NOW + 300_000
    made.job.lease_owner = "me"
    decide(made, polled(replace(EMPTY, not_urls=(0, 1))), RULES)

    assert waiting == (
        JobStatus.RUNNING,
        NOW + 15_000,
        "result.missing",
        '{"reason":"url_invalid","count":2}',
    )
    assert (made.job.status, made.job.error_code) == (JobStatus.FAILED, "result_missing")
    assert made.job.error_message == "the provider reports completion, and gives for files what is no URL"


def test_poll_about_another_task_is_not_believed() -> None:
    """The answer's task id must be the stored one."""
    made = draft(JobStatus.RUNNING)
    decide(made, polled(replace(DONE, task_id="other")), RULES)

    assert made.job.status is JobStatus.RUNNING
    assert "job.conflict" in types(made)


# -- callers and the clock -------------------------------------------------------------------------------------------


def test_deadline_expires_what_is_active_but_lets_a_request_in_flight_out_first() -> None:
    """Our own verdict, at our own deadline."""
    running, flying = draft(JobStatus.RUNNING, expires_at=NOW), draft(JobStatus.SUBMITTING, expires_at=NOW)
    decide(running, DeadlinePassed("job_1"), RULES)
    decide(flying, DeadlinePassed("job_1"), RULES)

    assert running.job.status is JobStatus.EXPIRED
    assert (running.job.error_code, running.job.resolved_by) == ("expired", "sweep")
    assert flying.job.status is JobStatus.SUBMITTING


def test_late_fact_replaces_expired_once_and_is_charged_once() -> None:
    """A verified completion after our verdict wins, with a new event; a second one changes nothing."""
    made = draft(JobStatus.EXPIRED, provider_task_id="t1", error_code="expired")
    decide(made, heard(DONE, evidence=True), RULES)
    decide(made, heard(FAILED, evidence=True), RULES)

    assert made.job.status is JobStatus.COMPLETED
    assert made.job.cost_charged == 10_000
    assert made.job.error_code is None
    assert types(made) == ["callback.received", "job.completed", "callback.received", "job.conflict"]


def test_unsigned_callback_after_expiry_makes_a_fetch_due() -> None:
    """A hint about an expired job is worth one look."""
    made = draft(JobStatus.EXPIRED, provider_task_id="t1", error_code="expired")
    decide(made, heard(DONE), RULES)
    asked = made.job.due_at
    decide(made, replace(polled(DONE), epoch=3), RULES)

    assert asked == NOW
    assert made.job.status is JobStatus.COMPLETED


def test_cancel_takes_back_what_is_queued_only() -> None:
    """Queued is cancelled; a second time is no error; running is refused; unknown needs force."""
    queued, running, unknown = draft(JobStatus.QUEUED), draft(JobStatus.RUNNING), draft(JobStatus.SUBMIT_UNKNOWN)
    first = decide(queued, CancelAsked("job_1", "acc_1", force=False), RULES)
    again = decide(queued, CancelAsked("job_1", "acc_1", force=False), RULES)
    late = decide(running, CancelAsked("job_1", "acc_1", force=True), RULES)
    unforced = decide(unknown, CancelAsked("job_1", "acc_1", force=False), RULES)
    forced = decide(unknown, CancelAsked("job_1", "acc_1", force=True), RULES)

    assert (first, again, forced) == (True, False, True)
    assert queued.job.status is unknown.job.status is JobStatus.CANCELLED
    assert isinstance(late, Conflict)
    assert late.code == "not_cancellable"
    assert isinstance(unforced, Conflict)
    assert "force" in unforced.detail


def test_other_accounts_cannot_touch_a_job() -> None:
    """Not theirs is not there."""
    made = draft(JobStatus.QUEUED)

    assert isinstance(decide(made, CancelAsked("job_1", "acc_2", force=True), RULES), NotFound)
    assert isinstance(decide(made, ResubmitAsked("job_1", "acc_2"), RULES), NotFound)
    assert made.job.status is JobStatus.QUEUED


def test_operator_gives_an_unknown_submit_a_further_one() -> None:
    """Back to the queue, the earlier submission is marked as replaced and its task forgotten."""
    made = draft(JobStatus.SUBMIT_UNKNOWN, provider_task_id="t1", task_confirmed=0)
    done = decide(made, ResubmitAsked("job_1", "acc_1"), RULES)

    assert done is True
    assert made.job.status is JobStatus.QUEUED
    assert (made.job.submission_id, made.job.provider_task_id, made.job.due_at) == (None, None, NOW)
    assert made.submissions[0]["outcome"] == "replaced"


def test_overdue_is_said_once() -> None:
    """A job that takes too long is announced once and goes on."""
    made = draft(JobStatus.RUNNING, overdue_at=NOW - 1)
    first = decide(made, OverdueNoticed("job_1"), RULES)
    again = decide(made, OverdueNoticed("job_1"), RULES)

    assert (first, again) == (True, False)
    assert types(made) == ["job.overdue"]
    assert made.job.status is JobStatus.RUNNING


def test_task_of_an_overdue_job_has_its_time() -> None:
    """A job that was overdue before its task began is announced once; when the task is overdue, too, that is only noted."""
    rules = replace(RULES, overdue_after_ms=30_000)
    made = draft(JobStatus.RUNNING, overdue_at=NOW - 1)
    first, kept_until = decide(made, OverdueNoticed("job_1"), rules), made.job.overdue_at
    made.now_ms += 30_000
    second = decide(made, OverdueNoticed("job_1"), rules)

    assert (first, second) == (True, True)
    assert (kept_until, made.job.overdue_at) == (NOW - 9_000 + 30_000, None)
    assert types(made) == ["job.overdue"]


def test_event_body_is_the_job_as_it_stands() -> None:
    """The bytes that are signed carry type, time, number and the job with its result links."""
    made = draft(JobStatus.RUNNING)
    decide(made, heard(DONE, evidence=True), RULES)
    body = msgspec.json.decode(made.notes[-1].body or b"")

    assert body["type"] == "job.completed"
    assert body["timestamp"] == "2026-11-18T11:06:40.000Z"
    assert body["data"]["seq"] == 3
    assert body["data"]["job"]["status"] == "completed"
    assert body["data"]["job"]["results"] == [
        {"index": 0, "url": "https://remora.example/r/job_1/0", "expires_at": "2026-11-25T11:06:40.000Z"}
    ]
    assert body["data"]["job"]["cost"] == {
        "currency": "USD",
        "estimated": "0.010000",
        "charged": "0.010000",
        "basis": "price_list",
    }
