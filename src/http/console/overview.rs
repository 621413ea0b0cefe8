//! The overview: how much was signed in the last hour, how long it took, and what needs a person.

use std::time::{Duration, SystemTime};

use actix_web::HttpResponse;
use askama::Template;
use tokio::time::timeout;

use super::{
    BASE, State,
    error::ConsoleError,
    frame::{self, Frame, Place},
    plot::{self, Figure, Series},
    tokens::ending,
    visit::Visit,
};
use crate::{
    domain::{certificate::CertificateSummary, ids::KeyName, job::JobState, timestamp::Timestamp, token::SlotReport},
    http::app::AppState,
    signing::{
        activity::{STEP, StepReport, Times},
        service::JobFilter,
    },
};

/// How long tokens may take to show certificates that are not known yet.
const CERTIFICATES_MAX: Duration = Duration::from_secs(1);
/// Steps that make one point of a plot: a minute.
const STEPS_A_POINT: usize = 4;

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    signed: u64,
    failed: u64,
    tokens_ready: usize,
    tokens: usize,
    doubts: usize,
    problems: Vec<(String, String)>,
    needing: Vec<SlotReport>,
    ends: Vec<Ending>,
    figures: Vec<Figure>,
}

/// A certificate whose validity wants attention.
struct Ending {
    key: KeyName,
    /// What is to be said of it.
    how: &'static str,
    not_after: Timestamp,
}

/// A frame with the number of requests that wait.
pub(super) async fn framed(state: &AppState, visit: &Visit, place: Place, title: &str) -> Frame {
    // A store that is away shows no count; the page itself will say so if it needs one.
    let waiting = state.services.permits.waiting(visit.operator()).await.map_or(0, |waiting| waiting.len());
    Frame::new(visit, place, title).waiting(waiting)
}

/// Who comes in sees what waits for them.
pub(super) async fn home(_: Visit) -> HttpResponse {
    frame::redirect(&format!("{BASE}/consent"))
}

pub(super) async fn show(state: State, visit: Visit) -> Result<HttpResponse, ConsoleError> {
    let desk = &state.services.desk;
    let steps = desk.activity();
    let slots: Vec<_> = desk.slots().into_iter().filter(|slot| desk.has_key_of(&slot.token, &visit.operator().keys)).collect();
    let doubt = JobFilter { state: Some(JobState::InDoubt), ..JobFilter::default() };
    let doubts = desk.jobs().search(&doubt, &visit.operator().keys, None).await?;
    let problems = if visit.operator().is_administrator() { desk.module_problems() } else { Default::default() };
    let count = |of: fn(&StepReport) -> u32| steps.iter().map(|step| u64::from(of(step))).sum();
    frame::page(&OverviewPage {
        frame: framed(&state, &visit, Place::Overview, "Overview").await,
        signed: count(|step| step.signed),
        failed: count(|step| step.failed),
        tokens_ready: slots.iter().filter(|slot| slot.status.state.takes_work()).count(),
        tokens: slots.len(),
        doubts: doubts.jobs.len(),
        problems: problems.into_iter().map(|(module, problem)| (module.to_string(), problem)).collect(),
        needing: slots.into_iter().filter(|slot| slot.status.state.needs_a_person()).collect(),
        ends: ends(&state, &visit).await,
        figures: figures(&steps),
    })
}

/// The certificates of this operator's keys that have ended, end soon, or are not valid yet; what ends first comes first.
async fn ends(state: &AppState, visit: &Visit) -> Vec<Ending> {
    let now = Timestamp::from(SystemTime::now());
    let known = timeout(CERTIFICATES_MAX, state.services.desk.certificates()).await.unwrap_or_default();
    let own = known.into_iter().filter(|(key, _)| visit.has_key(Some(key)));
    let read = own.filter_map(|(key, certificate)| {
        let summary = CertificateSummary::of(&certificate)?;
        Some(Ending { key, how: ending(&summary, now), not_after: summary.not_after })
    });
    let mut ends: Vec<_> = read.filter(|end| !end.how.is_empty()).collect();
    ends.sort_by_key(|end| end.not_after);
    ends
}

fn figures(steps: &[StepReport]) -> Vec<Figure> {
    let points: Vec<&[StepReport]> = steps.chunks(STEPS_A_POINT).collect();
    let a_point = STEP * u32::try_from(STEPS_A_POINT).unwrap_or(1);
    let sum = |of: fn(&StepReport) -> u32| {
        points.iter().map(|steps| Some(steps.iter().map(|step| f64::from(of(step))).sum::<f64>())).collect::<Vec<_>>()
    };
    let rate: Vec<_> = sum(|step| step.signed).into_iter().map(|count| count.map(|count| count / a_point.as_secs_f64())).collect();
    // The worst step of a minute stands for it: a plot is looked at for what went wrong.
    let worst = |of: fn(&StepReport) -> Option<Times>, part: fn(Times) -> f64| {
        let worst = |steps: &&[StepReport]| steps.iter().filter_map(of).map(part).reduce(f64::max);
        points.iter().map(worst).collect::<Vec<_>>()
    };
    let spread = |of: fn(&StepReport) -> Option<Times>| {
        vec![
            Series::line("half", "half within", worst(of, |times| times.median)),
            Series::line("most", "95 % within", worst(of, |times| times.p95)),
        ]
    };
    let now = |seconds: f64| frame::span(seconds);
    vec![
        plot::figure("Signatures per second", vec![Series::area("signed", "signed", rate)], |value| format!("{value:.1}")),
        plot::figure("Errors per minute", vec![Series::bars("failed", "not signed", sum(|step| step.failed))], |value| {
            format!("{value:.0}")
        }),
        plot::figure("Time in the queue", spread(|step| step.queue), now),
        plot::figure("Time on the token", spread(|step| step.token), now),
    ]
}
