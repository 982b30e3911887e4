//! `qlaunch submit --smoke`: every candidate really made, measured and gated, on a model of a few layers and a few samples.

use qlaunch_shared::protocol::Level;
use qlaunch_shared::sweep::{Data, Decision, Judgement, Row, Sweep, judge};
use qlaunch_shared::{Error, ErrorKind, Result};
use serde_json::json;

use super::hub::model_here;
use super::main::Context;
use super::submission::{Submission, folder_of, read_sweep_file};
use super::submit::SubmitArgs;
use crate::config::{Kind, Overrides, Settings};
use crate::session::{Opening, Setup, carry_out, entrants, script_of};
use crate::ship::{cluster_path, excerpt};
use crate::ui::{Watch, note};

/// Layers that are left of the model.
const LAYERS: usize = 2;
/// Samples that candidates are calibrated on.
const CALIBRATION: usize = 4;
/// Windows that they are measured on.
const WINDOWS: usize = 2;

/// Runs every candidate small; 0 if each ran to its end and passed the worker's gates. The scripts of the cluster that was
/// asked for are rendered, too, with `real` as its submission.
///
/// # Errors
/// A sweep that cannot be planned, a model that is not here.
pub fn smoke(args: &SubmitArgs, real: &Submission, setup: &Setup, context: &mut Context) -> Result<u8> {
    let settings = settings(args, context)?;
    let template = setup.job_template()?;
    for job in &real.run.jobs {
        let folder = real.run.site.join(&job.name);
        template.render(&script_of(job, &real.run, setup, &folder))?;
    }
    let (text, mut sweep) = read_sweep_file(&args.sweep)?;
    if let Some(path) = cluster_path(&sweep.model) {
        return Err(Error::input("a smoke run needs the model's weights on this machine")
            .at(path)
            .hint("copy the model here, or submit without `--smoke`: the plan alone needs no weights"));
    }
    sweep.model = model_here(&sweep.model, folder_of(&args.sweep), context)?;
    let folder = settings.runs.join("models");
    let small = shrink(sweep, |model| excerpt(model, LAYERS, &folder))?;
    let submission = Submission::plan(args, (text, small), settings, &context.around)?;
    let setup = submission.setup(&context.around, Opening::Fresh)?;
    context.screen.say(&format!(
        "smoke run on `{}`: {} jobs, {LAYERS} layers, {CALIBRATION} calibration samples",
        submission.settings.cluster,
        submission.run.jobs.len()
    ));
    submission.bring(&setup, &mut |text| context.screen.say(text))?;
    let carried = {
        let names = submission.run.jobs.iter().map(|job| job.name.clone());
        let mut watch = Watch::new(&mut context.screen, names);
        carry_out(&submission.run, &setup, &mut watch)?
    };
    if carried.interrupted || carried.detached {
        return Err(Error::new(ErrorKind::Interrupted, "the smoke run was stopped")
            .hint("give the same command again"));
    }
    let entrants = entrants(&submission.run, &setup.cluster, &carried.state)?;
    let again = args.again();
    let judged =
        judge(Judgement { run: &submission.run.name, submit: &again, sweep: &submission.sweep, entrants });
    report(&judged.rows, args, context)
}

/// The cluster of the smoke run: the one that was asked for where its jobs run on this machine, else `local`.
fn settings(args: &SubmitArgs, context: &Context) -> Result<Settings> {
    let load = |cluster: &str, runs: Option<std::path::PathBuf>| {
        Settings::load(cluster, &context.around, &Overrides { runs, ..Overrides::default() })
    };
    let asked = load(&args.cluster, args.runs.clone())?;
    // Apart from real runs, so that nobody takes one for the other.
    let runs = asked.runs.join(".smoke");
    let near = asked.profile.ssh.is_none() && matches!(asked.profile.kind, Kind::Local | Kind::Docker);
    load(if near { &args.cluster } else { "local" }, Some(runs))
}

/// The sweep on less of everything. Rules that compare figures are left out: those of so small a model say nothing.
fn shrink(sweep: Sweep, cut: impl FnOnce(&std::path::Path) -> Result<std::path::PathBuf>) -> Result<Sweep> {
    let at_most = |samples| {
        move |data: Data| Data { samples: Some(data.samples.unwrap_or(samples).min(samples)), ..data }
    };
    let model = cut(&sweep.model)?;
    let mut candidates = sweep.candidates;
    for candidate in &mut candidates {
        candidate.calibration = candidate.calibration.take().map(at_most(CALIBRATION));
    }
    Ok(Sweep {
        model,
        candidates,
        calibration: sweep.calibration.map(at_most(CALIBRATION)),
        evaluate: sweep.evaluate.map(at_most(WINDOWS)),
        acceptance: Vec::new(),
        gates: Vec::new(),
        ..sweep
    })
}

/// A line for each job, and the exit code: 11 if one did not end well, else 10 if a gate failed.
fn report(rows: &[Row], args: &SubmitArgs, context: &mut Context) -> Result<u8> {
    let broken = |row: &&Row| matches!(row.decision, Decision::Failed { .. } | Decision::Unfinished);
    let (failed, gated) =
        (rows.iter().filter(broken).count(), rows.iter().filter(|row| row.gate_failed()).count());
    let code = match (failed, gated) {
        (0, 0) => 0,
        (0, _) => ErrorKind::Gate.exit_code(),
        _ => ErrorKind::Candidates.exit_code(),
    };
    if context.screen.json {
        // After it, a submission prints its own document.
        if !args.smoke_first {
            context.screen.document(&json!({"smoke": rows, "failed": failed, "gates_failed": gated}))?;
        }
        return Ok(code);
    }
    let width = rows.iter().map(|row| row.candidate.chars().count()).max().unwrap_or(0);
    for row in rows {
        let gates = row.gates.len();
        let text = match &row.decision {
            Decision::Failed { error } => format!("FAILED: {error}"),
            Decision::Unfinished => "FAILED: it did not end".to_owned(),
            _ if row.gate_failed() => "a gate FAILED".to_owned(),
            _ => format!("ok, {gates} gates"),
        };
        context.screen.data(&format!("  {:width$}  {text}", row.candidate))?;
    }
    if code != 0 {
        let text = format!("the smoke run found {} of {} that would not work", failed + gated, rows.len());
        context.screen.say(&note(Level::Warning, &text));
    }
    Ok(code)
}
