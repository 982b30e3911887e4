//! `qlaunch reproduce`: makes some pieces of a checkpoint again, by what its quality report says, and compares them.

use std::path::{Path, PathBuf};

use clap::Args;
use qlaunch_shared::assign::Piece;
use qlaunch_shared::digest::sha256;
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{
    self, CalibrationSummary, JobSpec, Level, Outcome, Quantize, Reproduce, Reproduced, Resources,
    TokenSource,
};
use qlaunch_shared::quality::{FILE, Quality, identity};
use qlaunch_shared::{Error, ErrorKind, Result};
use serde_json::json;

use super::main::Context;
use super::values::count;
use crate::config::{Overrides, Settings};
use crate::plan::{PlannedJob, SHARD_BYTES, absolute};
use crate::session::{Setup, Single, carry_out_single, now};
use crate::ui::{Watch, bytes, note};

const EXAMPLES: &str = "\
Examples:
  qlaunch reproduce out/fp8 --layers 3
  qlaunch reproduce downloaded/fp8 --model models/tiny --calib text.jsonl --layers 5 --seed 17";

/// Makes pieces of a checkpoint again, drawn at random, and holds them against it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReproduceArgs {
    /// Folder of the checkpoint.
    checkpoint: PathBuf,
    /// How many pieces to make again: decoder layers, the embedding and the output head count as one each.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = count)]
    layers: usize,
    /// Draws the same pieces as another time; by the clock if not given.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Folder of the source model, where it is no longer where it was.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The calibration data, where they are no longer where they were.
    #[arg(long, value_name = "FILE")]
    calib: Option<PathBuf>,
    /// Processes that share the model's layers and the cores; one if not given.
    #[arg(long, value_name = "N", value_parser = count)]
    ranks: Option<usize>,
    /// CPU threads of each rank; all cores if not given.
    #[arg(long, value_name = "T", value_parser = count)]
    threads: Option<usize>,
}

/// Runs the command.
pub fn run(args: &ReproduceArgs, context: &mut Context) -> Result<u8> {
    let overrides = Overrides { runs: None, threads: args.threads, ranks: args.ranks };
    let settings = Settings::load("local", &context.around, &overrides)?;
    let setup = Setup::local(&settings, &context.around)?;
    let seed = args.seed.unwrap_or_else(now);
    let checkpoint = absolute(&context.around.project.join(&args.checkpoint))?;
    let quality = read_quality(&checkpoint)?;
    let model = source(&quality, args)?;
    let pieces = draw(&Piece::all(model.config.layers).collect::<Vec<_>>(), args.layers, seed);
    let all = model.config.layers + 2;
    let told = spell(&pieces);
    context.screen.say(&format!("making {told} again, of {all} pieces: `--seed {seed}` draws the same"));
    let (own, theirs) = (env!("CARGO_PKG_VERSION"), &quality.recorded.tool.version);
    if own != theirs {
        let text =
            format!("the checkpoint was made by version {theirs}, and this is {own}: bytes may differ");
        context.screen.say(&note(Level::Warning, &text));
    }
    let resources = Resources {
        // Where its numeric path is.
        device: None,
        threads: settings.profile.threads,
        numeric_path: Some(quality.recorded.tool.numeric_path),
        ranks: settings.profile.ranks,
    };
    let spec = JobSpec {
        version: protocol::VERSION,
        run: "reproduce".to_owned(),
        candidate: "reproduce".to_owned(),
        model: absolute(&model.folder)?,
        quantize: None,
        calibrate: Vec::new(),
        store: None,
        rehash: false,
        reproduce: Some(request(&quality, (checkpoint.clone(), pieces), args)?),
        evaluate: None,
        resources,
    };
    let recipe = Some(quality.recorded.recipe.name.clone());
    let job = PlannedJob { name: "reproduce".to_owned(), recipe, plan: None, spec };
    let outcome = {
        let mut watch = Watch::new(&mut context.screen, ["reproduce".to_owned()]);
        carry_out_single(Single { job, scratch: std::env::temp_dir() }, &setup, &mut watch)?
    };
    show(&outcome, (&checkpoint, all, seed), context)
}

fn read_quality(checkpoint: &Path) -> Result<Quality> {
    let path = checkpoint.join(FILE);
    let text = std::fs::read(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::input("the checkpoint does not say how it was made")
            .at(&path)
            .hint("checkpoints of `qlaunch` do; those of other tools cannot be made again"),
        _ => Error::io("read", &path, &error),
    })?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::input(format!("the quality report is not understood: {error}")).at(&path))
}

/// The model that the checkpoint was made from, and no other.
fn source(quality: &Quality, args: &ReproduceArgs) -> Result<Model> {
    let recorded = &quality.recorded.source;
    let folder = args.model.as_ref().or(recorded.folder.as_ref()).ok_or_else(|| {
        Error::usage(format!("the checkpoint does not say where its source `{}` lies", recorded.name))
            .hint("give its folder: `--model DIR`")
    })?;
    let hint = "give the folder of the model that it was made from: `--model DIR`";
    let model = Model::open(folder).map_err(|error| match error.hint.is_some() && args.model.is_some() {
        true => error,
        false => error.hint(hint),
    })?;
    if identity(&model)?.sha256 != recorded.sha256 {
        return Err(Error::input("this is not the model that the checkpoint was made from")
            .at(folder)
            .key("source.sha256")
            .hint(hint));
    }
    Ok(model)
}

/// What the worker is asked for: the checkpoint's own recipe, on its own data.
fn request(
    quality: &Quality,
    (checkpoint, pieces): (PathBuf, Vec<Piece>),
    args: &ReproduceArgs,
) -> Result<Reproduce> {
    let recorded = &quality.recorded;
    let tokens = recorded.calibration.as_ref();
    let calibration = tokens.map(|calibration| data(calibration, args)).transpose()?;
    let made = Quantize {
        recipe: recorded.recipe.clone(),
        mixed_groups: recorded.mixed_groups,
        silent_experts: recorded.silent_experts,
        calibration,
        out: None,
        shard_bytes: SHARD_BYTES,
        no_digests: false,
        assignment: None,
    };
    let tokens_sha256 = tokens.map(|calibration| calibration.tokens_sha256.clone());
    Ok(Reproduce { checkpoint, made, tokens_sha256, pieces })
}

fn data(calibration: &CalibrationSummary, args: &ReproduceArgs) -> Result<TokenSource> {
    let data = absolute(args.calib.as_ref().unwrap_or(&calibration.data))
        .map_err(|error| error.hint("give the calibration data that it was made with: `--calib FILE`"))?;
    let seq_len = calibration.tokens.checked_div(calibration.samples);
    Ok(TokenSource { data, samples: Some(calibration.samples), seq_len, batch_size: 8, seed: 0 })
}

/// So many pieces, in order, drawn by hashes of the seed: nobody who changes a checkpoint knows which.
fn draw(all: &[Piece], count: usize, seed: u64) -> Vec<Piece> {
    let mut drawn: Vec<(String, Piece)> =
        all.iter().map(|&piece| (sha256(format!("{seed} {piece}")), piece)).collect();
    drawn.sort();
    let mut pieces: Vec<Piece> = drawn.into_iter().take(count).map(|(_, piece)| piece).collect();
    pieces.sort();
    pieces
}

/// Share of the ways to change so many of `all` pieces that at least one of `drawn` is among: 1 − C(all − changed, drawn) / C(all,
/// drawn).
fn caught(all: usize, drawn: usize, changed: usize) -> f64 {
    let missed = (0..drawn).map(|n| {
        let left = all.saturating_sub(changed).saturating_sub(n);
        left as f64 / (all - n) as f64
    });
    1.0 - missed.product::<f64>()
}

fn spell(pieces: &[Piece]) -> String {
    let names: Vec<String> = pieces.iter().map(Piece::to_string).collect();
    names.join(", ")
}

fn show(
    outcome: &Outcome,
    (checkpoint, all, seed): (&Path, usize, u64),
    context: &mut Context,
) -> Result<u8> {
    let found = &outcome.reproduced;
    let differing: Vec<&Reproduced> = found.iter().filter(|piece| !piece.differing.is_empty()).collect();
    let is_same = differing.is_empty();
    let shares = [1, 2, all.div_ceil(2)].map(|changed| (changed, caught(all, found.len(), changed)));
    if context.screen.json {
        let shares = shares.map(|(changed, share)| json!({ "changed": changed, "caught": share }));
        context.screen.document(&json!({
            "version": 1, "checkpoint": checkpoint, "same": is_same, "pieces": all, "seed": seed,
            "reproduced": found, "shares": shares,
        }))?;
    } else {
        for piece in found {
            let text = match piece.differing.is_empty() {
                true => format!("same: {} tensors, {}", piece.tensors, bytes(piece.bytes)),
                false => format!("DIFFERS in {}", piece.differing.join(", ")),
            };
            context.screen.data(&format!("{:12} {text}", piece.piece.to_string()))?;
        }
        let [one, two, half] = shares.map(|(_, share)| format!("{:.0}%", share * 100.0));
        context.screen.data(&format!(
            "{} of {all} pieces were made again: a change in one piece is caught with a probability of {one}, in two with {two}, in half of them with {half}",
            found.len()
        ))?;
    }
    Ok(if is_same { 0 } else { ErrorKind::Gate.exit_code() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_drawn_by_the_seed_without_repetition() {
        let all: Vec<Piece> = Piece::all(8).collect();
        let drawn = draw(&all, 3, 7);
        assert_eq!(drawn, draw(&all, 3, 7));
        assert!(drawn.is_sorted() && drawn.len() == 3 && drawn[0] != drawn[1] && drawn[1] != drawn[2]);
        assert_eq!(draw(&all, 99, 7), all);
        // Every piece is drawn about as often as any other.
        let mut times = [0u32; 10];
        for seed in 0..2000 {
            for piece in draw(&all, 3, seed) {
                times[all.iter().position(|other| *other == piece).unwrap()] += 1;
            }
        }
        assert!(times.iter().all(|&times| (500..700).contains(&times)), "{times:?}");
    }

    #[test]
    fn the_share_of_changes_that_is_caught_is_counted_right() {
        assert!((caught(10, 3, 1) - 0.3).abs() < 1e-12);
        // 1 − C(8, 3) / C(10, 3) = 1 − 56 / 120.
        assert!((caught(10, 3, 2) - (1.0 - 56.0 / 120.0)).abs() < 1e-12);
        assert_eq!((caught(10, 10, 1), caught(10, 3, 8), caught(10, 0, 5)), (1.0, 1.0, 0.0));
    }
}
