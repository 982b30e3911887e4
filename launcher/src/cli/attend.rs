//! Drives a run for a person and ends in its portfolio: what `submit`, `watch` and `rerun` have in common.

use qlaunch_shared::protocol::Level;
use qlaunch_shared::sweep::{Decision, Judgement, Portfolio, Sweep, judge};
use qlaunch_shared::{Error, ErrorKind, Result};

use super::main::Context;
use super::notify::{Messenger, Notifier};
use crate::engine::Stage;
use crate::plan::PlannedRun;
use crate::session::{Carried, Setup, carry_out, entrants, now, write_portfolio};
use crate::ui::{Watch, note, show_portfolio};

/// A run that somebody attends.
#[derive(Debug, Clone, Copy)]
pub struct Attended<'a> {
    /// The run.
    pub run: &'a PlannedRun,
    /// Its sweep.
    pub sweep: &'a Sweep,
    /// The command that submits it again.
    pub submit: &'a str,
}

/// Drives the run until it is over or left alone, judges it, shows the portfolio.
///
/// # Errors
/// A run folder that cannot be written or is driven by another launcher; somebody asked to stop.
pub fn attend(attended: Attended<'_>, setup: &Setup, context: &mut Context) -> Result<u8> {
    let mut messenger = Messenger::of(setup.notify.clone(), &attended.run.name, &setup.cluster);
    let ended = drive(attended, setup, &mut messenger, context);
    for complaint in messenger.finish() {
        context.screen.say(&note(Level::Warning, &complaint));
    }
    ended
}

fn drive(
    attended: Attended<'_>,
    setup: &Setup,
    messenger: &mut Messenger,
    context: &mut Context,
) -> Result<u8> {
    let carried = {
        let names = attended.run.jobs.iter().map(|job| job.name.clone());
        let mut watch = Watch::new(&mut context.screen, names);
        carry_out(attended.run, setup, &mut Notifier::before(&mut watch, messenger))?
    };
    if carried.detached {
        return Ok(detached(attended.run, context));
    }
    if carried.interrupted {
        return Err(interrupted(&carried, attended.submit));
    }
    let portfolio = conclude(attended, setup, carried)?;
    show(&portfolio, context)?;
    let (best, code) = (&portfolio.recommendation, exit_code(&portfolio));
    messenger.over(best.candidate.as_deref(), &best.reason, code);
    Ok(code)
}

/// Judges what came of the run and keeps the portfolio beside it.
fn conclude(attended: Attended<'_>, setup: &Setup, mut carried: Carried) -> Result<Portfolio> {
    let Attended { run, sweep, submit } = attended;
    let entrants = entrants(run, &setup.cluster, &carried.state)?;
    let portfolio = judge(Judgement { run: &run.name, submit, sweep, entrants });
    write_portfolio(&run.folder, &portfolio, &mut carried.journal, now())?;
    Ok(portfolio)
}

fn show(portfolio: &Portfolio, context: &mut Context) -> Result<()> {
    match context.screen.json {
        true => context.screen.document(portfolio),
        false => {
            let text = show_portfolio(portfolio, &context.screen);
            context.screen.data(&format!("\n{text}"))?;
            if exit_code(portfolio) == ErrorKind::Candidates.exit_code() {
                context.screen.say(&note(Level::Warning, "some candidates failed (exit code 11)"));
            }
            Ok(())
        }
    }
}

/// 11 if something did not run to its end, else 10 if a gate failed, else 0. That a candidate is not acceptable is an
/// answer, not a failure.
fn exit_code(portfolio: &Portfolio) -> u8 {
    let unfinished = |decision: &Decision| matches!(decision, Decision::Failed { .. } | Decision::Unfinished);
    if portfolio.rows.iter().any(|row| unfinished(&row.decision)) {
        return ErrorKind::Candidates.exit_code();
    }
    match portfolio.rows.iter().any(qlaunch_shared::sweep::Row::gate_failed) {
        true => ErrorKind::Gate.exit_code(),
        false => 0,
    }
}

/// Jobs go on without us; whoever wants to see more knows how.
fn detached(run: &PlannedRun, context: &mut Context) -> u8 {
    let name = &run.name;
    context.screen.say(&format!(
        "detached, and the jobs go on: `qlaunch watch {name}` follows them again, `qlaunch status {name}` tells how they are, `qlaunch cancel {name}` stops them"
    ));
    ErrorKind::Interrupted.exit_code()
}

fn interrupted(carried: &Carried, submit: &str) -> Error {
    let jobs = &carried.state.jobs;
    let done = jobs.iter().filter(|job| job.stage == Stage::Accepted).count();
    let message = format!("stopped with {done} of {} done, and nothing is lost", jobs.len());
    Error::new(ErrorKind::Interrupted, message).hint(format!("go on with `{submit}`"))
}
