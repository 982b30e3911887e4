//! `qlaunch quantize`: makes one quantized checkpoint.

use std::path::{Path, PathBuf};

use clap::Args;
use qlaunch_shared::assign::{Aims, Grouping, resolve_with};
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{
    self, DeviceChoice, JobSpec, Level, NumericPath, Outcome, Quantize, Resources, SilentExperts,
    TokenSource, VerdictKind,
};
use qlaunch_shared::{Error, Result};

use super::hub::{data_here, model_here};
use super::main::Context;
use super::plan::{GroupChoice, RecipeChoice};
use super::values::{count, device, numeric_path, silent_experts, size};
use crate::config::{Overrides, Profile, Settings};
use crate::plan::{PlannedJob, SHARD_BYTES, absolute};
use crate::session::{Setup, Single, carry_out_single};
use crate::ui::{Watch, bytes, coverage, note, warnings};

const EXAMPLES: &str = "\
Examples:
  qlaunch quantize models/tiny --recipe general/ptq/fp8_default-kv_fp8 --calib text.jsonl --out out/fp8
  qlaunch quantize models/tiny --recipe w4a16_nvfp4 --out out/nvfp4            weights only: no calibration";

/// Makes a checkpoint that vLLM and others load, and checks it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct QuantizeArgs {
    /// Folder of the source model, or its name on the Hub: ORG/NAME, ORG/NAME@REVISION.
    model: PathBuf,
    #[command(flatten)]
    recipe: RecipeChoice,
    #[command(flatten)]
    groups: GroupChoice,
    /// Calibration data: .jsonl with `text`, .txt, or .npy of token ids. Weight-only recipes need none.
    #[arg(long, value_name = "FILE")]
    calib: Option<PathBuf>,
    /// Folder of the checkpoint; must be absent or empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Use at most this many samples [default: 512, or all of an .npy].
    #[arg(long, value_name = "N", value_parser = count)]
    samples: Option<usize>,
    /// Tokens per sample [default: 512, or those of an .npy].
    #[arg(long, value_name = "L", value_parser = count)]
    seq_len: Option<usize>,
    /// What stands in for the statistics of experts that saw no token: `peers`, the other experts of the layer where that
    /// says something; `weights`, nothing but their weights; or `fail`.
    #[arg(long, value_name = "POLICY", value_parser = silent_experts, default_value = "peers")]
    silent_experts: SilentExperts,
    /// Samples that go through a layer together; changes speed and memory, never bytes.
    #[arg(long, value_name = "B", default_value_t = 8, value_parser = count)]
    batch_size: usize,
    /// Largest size of one safetensors file, as in `10GB` or `2GiB`.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_shard_size: Option<u64>,
    /// Folder of a store: what is made is kept there and found again, a job that was stopped goes on from it, and each layer
    /// gets a file of its own.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Reads every byte of the model again, instead of trusting what the store knows of its files.
    #[arg(long, requires = "store")]
    rehash: bool,
    /// Leaves out the digest of each tensor, by which `qlaunch verify` checks the checkpoint; about half a second of CPU time
    /// a gigabyte.
    #[arg(long, conflicts_with = "store")]
    no_digests: bool,
    #[command(flatten)]
    pub resources: ResourceArgs,
}

/// What the worker may use.
#[derive(Debug, Args)]
pub struct ResourceArgs {
    /// Processes that share the model's layers and the cores; one if not given. Bytes stay the same.
    #[arg(long, value_name = "N", value_parser = count)]
    pub ranks: Option<usize>,
    /// CPU threads of each rank; all cores if not given.
    #[arg(long, value_name = "T", value_parser = count)]
    pub threads: Option<usize>,
    /// Where the work is done: auto, cpu, cuda, or cuda:N for one GPU of several; a GPU where one can be used if not given.
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    pub device: Option<DeviceChoice>,
    /// What all results are computed with: avx512bf16, avx2, portable, or a GPU's path as cuda-sm90; the device's best if not
    /// given.
    #[arg(long, value_name = "PATH", value_parser = numeric_path)]
    pub numeric_path: Option<NumericPath>,
    /// Answers every question with yes.
    #[arg(long)]
    pub yes: bool,
}

/// Runs the command.
pub fn run(args: &QuantizeArgs, context: &mut Context) -> Result<u8> {
    let from = Inputs {
        model: model_here(&args.model, Path::new(""), context)?,
        calib: args.calib.as_deref().map(|data| data_here(data, context)).transpose()?,
    };
    let overrides = Overrides { runs: None, threads: args.resources.threads, ranks: args.resources.ranks };
    let settings = Settings::load("local", &context.around, &overrides)?;
    let setup = Setup::local(&settings, &context.around)?;
    let job = job((args, &from), context, &settings.profile)?;
    if let Some(plan) = &job.plan {
        context.screen.say(&format!("{} · {}", plan.recipe, coverage(plan)));
        for warning in warnings(plan) {
            context.screen.say(&warning);
        }
    }
    for text in job.recipe_notes() {
        context.screen.say(&note(Level::Info, text));
    }
    let single = Single { job, scratch: std::env::temp_dir() };
    let outcome = {
        let mut watch = Watch::new(&mut context.screen, ["quantize".to_owned()]);
        carry_out_single(single, &setup, &mut watch)?
    };
    show(&outcome, &args.out, context)?;
    let failed = outcome.gates.iter().any(|gate| gate.verdict == VerdictKind::Fail);
    Ok(if failed { qlaunch_shared::ErrorKind::Gate.exit_code() } else { 0 })
}

/// The model and the data on this machine, wherever they came from.
struct Inputs {
    model: PathBuf,
    calib: Option<PathBuf>,
}

fn job((args, from): (&QuantizeArgs, &Inputs), context: &Context, profile: &Profile) -> Result<PlannedJob> {
    refuse_full_folder(&args.out)?;
    let model = Model::open(&from.model)?;
    let recipe = args.recipe.load(&context.around)?;
    let shard_bytes = args.max_shard_size.unwrap_or(SHARD_BYTES);
    let mixed_groups = args.groups.mixed();
    let grouping = if args.store.is_some() { Grouping::ByPiece } else { Grouping::BySize };
    let aims = Aims { shard_bytes, grouping, mixed_groups };
    let resolved = resolve_with(&model, Some(&recipe), aims)?.asking_engines(&model);
    let needed = resolved.assignment.is_some_and(|assignment| assignment.needs_calibration());
    if needed && args.calib.is_none() {
        return Err(Error::usage(format!("the recipe `{}` needs calibration data", recipe.name))
            .hint("add `--calib FILE` with .jsonl, .txt or .npy data"));
    }
    let calibration = from.calib.as_deref().map(|data| calibration(data, args)).transpose()?;
    let (name, model) = (recipe.name.clone(), absolute(&from.model)?);
    let assignment = Some(resolved.plan.assignment.clone());
    let out = Some(context.around.project.join(&args.out));
    let (threads, numeric_path) = (profile.threads, args.resources.numeric_path);
    Ok(PlannedJob {
        name: "quantize".to_owned(),
        recipe: Some(name),
        plan: Some(resolved.plan),
        spec: JobSpec {
            version: protocol::VERSION,
            run: "quantize".to_owned(),
            candidate: "quantize".to_owned(),
            model,
            quantize: Some(Quantize {
                recipe,
                mixed_groups,
                silent_experts: args.silent_experts,
                calibration,
                out,
                shard_bytes,
                no_digests: args.no_digests,
                assignment,
            }),
            calibrate: Vec::new(),
            store: args.store.as_ref().map(|store| context.around.project.join(store)),
            rehash: args.rehash,
            reproduce: None,
            evaluate: None,
            resources: Resources {
                threads,
                device: args.resources.device,
                numeric_path,
                ranks: profile.ranks,
            },
        },
    })
}

fn calibration(data: &Path, args: &QuantizeArgs) -> Result<TokenSource> {
    Ok(TokenSource {
        data: absolute(data)?,
        samples: args.samples,
        seq_len: args.seq_len,
        batch_size: args.batch_size,
        seed: 0,
    })
}

/// Found now rather than after the calibration; the worker checks again.
fn refuse_full_folder(out: &Path) -> Result<()> {
    let mut entries = match std::fs::read_dir(out) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("use the output folder", out, &error)),
    };
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Error::input("the output folder is not empty")
            .at(out)
            .hint("choose another `--out`, or empty it")),
    }
}

fn show(outcome: &Outcome, out: &Path, context: &mut Context) -> Result<()> {
    if context.screen.json {
        return context.screen.document(outcome);
    }
    for gate in &outcome.gates {
        let word = match gate.verdict {
            VerdictKind::Pass => "pass",
            VerdictKind::Fail => "FAIL",
            VerdictKind::Indeterminate => "unclear",
        };
        context.screen.data(&format!("gate {:12} {word:8} {}", gate.gate, gate.evidence.join("; ")))?;
    }
    if let Some(checkpoint) = &outcome.checkpoint {
        context.screen.data(&format!(
            "{} · {} ({:.2}×) · {:.1} bits",
            out.display(),
            bytes(checkpoint.totals.bytes),
            checkpoint.totals.ratio,
            checkpoint.totals.effective_bits
        ))?;
    }
    Ok(())
}
