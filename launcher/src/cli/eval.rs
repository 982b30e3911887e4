//! `qlaunch eval`: measures the perplexity of a model or checkpoint.

use std::path::{Path, PathBuf};

use clap::Args;
use qlaunch_shared::protocol::{self, Evaluate, JobSpec, Outcome, Reference, Resources, TokenSource};
use qlaunch_shared::{Error, Result};
use serde_json::json;

use super::hub::{data_here, model_here};
use super::main::Context;
use super::quantize::ResourceArgs;
use super::values::count;
use crate::config::{Overrides, Profile, Settings};
use crate::plan::{PlannedJob, absolute};
use crate::session::{Setup, Single, carry_out_single};
use crate::ui::{Watch, count as grouped, perplexity};

const EXAMPLES: &str = "\
Examples:
  qlaunch eval models/tiny --data heldout.txt
  qlaunch eval out/fp8 --data eval_tokens.npy --reference models/tiny --samples 32 --format json";

/// Measures perplexity with the quantization simulated as it is served, and the KL divergence to a reference.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct EvalArgs {
    /// Folder of the model or checkpoint, or its name on the Hub: ORG/NAME, ORG/NAME@REVISION.
    checkpoint: PathBuf,
    /// Evaluation data: .jsonl with `text`, .txt, or .npy of token ids.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Folder of the model that the KL divergence is measured against.
    #[arg(long, value_name = "MODEL")]
    reference: Option<PathBuf>,
    /// Tokens per window [default: 512, or those of an .npy].
    #[arg(long, value_name = "L", value_parser = count)]
    seq_len: Option<usize>,
    /// Use the first N windows [default: all].
    #[arg(long, value_name = "N", value_parser = count)]
    samples: Option<usize>,
    /// Windows that go through a layer together; changes speed and memory, never figures.
    #[arg(long, value_name = "B", default_value_t = 8, value_parser = count)]
    batch_size: usize,
    #[command(flatten)]
    resources: ResourceArgs,
}

/// Runs the command.
pub fn run(args: &EvalArgs, context: &mut Context) -> Result<u8> {
    let from = Inputs {
        args,
        checkpoint: model_here(&args.checkpoint, Path::new(""), context)?,
        reference: args
            .reference
            .as_deref()
            .map(|model| model_here(model, Path::new(""), context))
            .transpose()?,
        data: data_here(&args.data, context)?,
    };
    let overrides = Overrides { runs: None, threads: args.resources.threads, ranks: args.resources.ranks };
    let settings = Settings::load("local", &context.around, &overrides)?;
    let setup = Setup::local(&settings, &context.around)?;
    let job = job(&from, &settings.profile)?;
    let single = Single { job, scratch: std::env::temp_dir() };
    let outcome = {
        let mut watch = Watch::new(&mut context.screen, ["eval".to_owned()]);
        carry_out_single(single, &setup, &mut watch)?
    };
    show(args, &outcome, context)?;
    Ok(0)
}

/// What is measured, and by what, on this machine, wherever it came from.
struct Inputs<'a> {
    args: &'a EvalArgs,
    checkpoint: PathBuf,
    reference: Option<PathBuf>,
    data: PathBuf,
}

fn job(from: &Inputs<'_>, profile: &Profile) -> Result<PlannedJob> {
    let args = from.args;
    let checkpoint = absolute(&from.checkpoint)?;
    let reference = match &from.reference {
        Some(model) => Reference::Model(absolute(model)?),
        None => Reference::None,
    };
    let tokens = TokenSource {
        data: absolute(&from.data)?,
        samples: args.samples,
        seq_len: args.seq_len,
        batch_size: args.batch_size,
        seed: 0,
    };
    let (threads, numeric_path) = (profile.threads, args.resources.numeric_path);
    Ok(PlannedJob {
        name: "eval".to_owned(),
        recipe: None,
        plan: None,
        spec: JobSpec {
            version: protocol::VERSION,
            run: "eval".to_owned(),
            candidate: "eval".to_owned(),
            model: checkpoint.clone(),
            quantize: None,
            calibrate: Vec::new(),
            store: None,
            rehash: false,
            reproduce: None,
            evaluate: Some(Evaluate {
                checkpoint: Some(checkpoint),
                tokens,
                reference,
                ceilings: Vec::new(),
            }),
            resources: Resources {
                threads,
                device: args.resources.device,
                numeric_path,
                ranks: profile.ranks,
            },
        },
    })
}

fn show(args: &EvalArgs, outcome: &Outcome, context: &mut Context) -> Result<()> {
    let evaluation =
        outcome.evaluation.as_ref().ok_or_else(|| Error::bug("the worker was done, but measured nothing"))?;
    if context.screen.json {
        return context.screen.document(&json!({
            "checkpoint": args.checkpoint,
            "data": args.data,
            "reference": args.reference,
            "perplexity": evaluation.perplexity,
            "nll": evaluation.nll,
            "tokens": evaluation.tokens,
            "windows": evaluation.windows,
            "kl_mean": evaluation.kl_mean,
            "numeric_path": outcome.numeric_path,
            "threads": outcome.threads,
            "phases": outcome.phases,
            "cpu_seconds": outcome.cpu_seconds,
            "peak_memory": outcome.peak_memory,
            "worker": outcome.worker,
        }));
    }
    let divergence = evaluation.kl_mean.map_or(String::new(), |kl| format!(" · KL {kl:.4}"));
    context.screen.data(&format!(
        "perplexity {} · nll {:.5}{divergence} · {} tokens, windows: {}",
        perplexity(evaluation.perplexity),
        evaluation.nll,
        grouped(evaluation.tokens),
        evaluation.windows
    ))
}
