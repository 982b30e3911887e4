//! `qlaunch recipe check`: everything that is wrong with a recipe, before anything is run by it.

use std::path::PathBuf;

use clap::Args;
use qlaunch_shared::assign::{Calibration, Plan, resolve};
use qlaunch_shared::model::Model;
use qlaunch_shared::recipe::{Body, EntryOrigin, Examination, QuantizeConfig, Recipe, examine};
use qlaunch_shared::{Error, ErrorKind, Result};

use crate::cli::main::Context;
use crate::config::library;
use crate::plan::SHARD_BYTES;
use crate::ui::{RecipeReport, show_recipe_report};

const EXAMPLES: &str = "\
Examples:
  qlaunch recipe check my/recipe.yaml
  qlaunch recipe check my/recipe.yaml --model models/tiny --format json

Exit codes: 0 nothing is wrong, 3 something is.";

/// Finds everything that is wrong with a recipe, preset or snippet, each with file, line and remedy.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CheckArgs {
    /// Name or path.
    recipe: String,
    /// Folder of a model that the recipe is for: what its patterns reach is checked too.
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &CheckArgs, context: &mut Context) -> Result<u8> {
    let examination = examine(&library(&context.around)?, &args.recipe)?;
    let mut report = RecipeReport::new(&examination);
    if let Some(recipe) = &examination.recipe {
        report.errors.extend(algorithm_faults(recipe, &examination));
    }
    if let Some(folder) = &args.model {
        let model = Model::open(folder)?;
        against(&model, &examination, &mut report);
    }
    match context.screen.json {
        true => context.screen.document(&report)?,
        false => {
            let text = show_recipe_report(&report);
            context.screen.data(&text)?;
        }
    }
    Ok(if report.errors.is_empty() { 0 } else { ErrorKind::Input.exit_code() })
}

/// ModelOpt looks at `algorithm` when calibration starts; here it is looked at before anything is started.
fn algorithm_faults(recipe: &Recipe, examination: &Examination) -> Vec<Error> {
    let section = match recipe.form {
        qlaunch_shared::recipe::Form::Recipe => "quantize.algorithm",
        qlaunch_shared::recipe::Form::Preset => "algorithm",
    };
    let config = match &recipe.body {
        Body::Quantize(config) | Body::AutoQuantize { baseline: Some(config), .. } => config,
        Body::AutoQuantize { baseline: None, .. } | Body::Training(_) => return Vec::new(),
    };
    let fault = Calibration::parse(&config.algorithm).err();
    let hinted = |error: Error| match error.hint {
        Some(_) => error,
        None => error.hint("compare `qlaunch recipe show general/ptq/nvfp4_default-kv_fp8`, which works"),
    };
    fault.map(|error| hinted(examination.locate(error, section))).into_iter().collect()
}

/// What the recipe does to a model: what its patterns reach, and what keeps it from being carried out.
fn against(model: &Model, examination: &Examination, report: &mut RecipeReport) {
    let Some(recipe) = &examination.recipe else {
        return;
    };
    let Some(config) = recipe.quantize() else {
        // Says why recipes of this type are not run.
        report.errors.extend(resolve(model, Some(recipe), SHARD_BYTES).err());
        return;
    };
    // Own patterns that match nothing stop the assignment at the first; all of them are wanted here.
    let mut lenient = recipe.clone();
    if let Body::Quantize(config) = &mut lenient.body {
        config.quant_cfg.iter_mut().for_each(|entry| entry.origin = EntryOrigin::Library);
    }
    match resolve(model, Some(&lenient), SHARD_BYTES) {
        Ok(resolved) => {
            unreached(config, &resolved.plan, examination, report);
            report.plan = Some(resolved.plan);
        }
        // The algorithm is refused once more by the assignment; whatever else stops it is news.
        Err(error) if report.errors.is_empty() => {
            let strict = resolve(model, Some(recipe), SHARD_BYTES).err();
            report.errors.extend(strict.filter(|strict| strict.message != error.message));
            report.errors.push(error);
        }
        Err(_) => {}
    }
}

/// Enabling patterns that match nothing: an error in somebody's own file, a warning in units for many families.
fn unreached(config: &QuantizeConfig, plan: &Plan, examination: &Examination, report: &mut RecipeReport) {
    let section = if examination.mark("quantize").is_some() { "quantize.quant_cfg" } else { "quant_cfg" };
    let reached = config.quant_cfg.iter().zip(&plan.coverage.patterns).enumerate();
    for (index, (entry, reach)) in reached {
        if !entry.enable || reach.matched > 0 {
            continue;
        }
        let finding = Error::input(format!(
            "the pattern `{}` matches no quantizer of this model",
            entry.quantizer_name
        ));
        let finding = examination.locate(finding, &format!("{section}.{index}"));
        match entry.origin {
            EntryOrigin::Own => report.errors.push(finding.hint(
                "`qlaunch plan MODEL --recipe fp8` shows the names of its modules; remove what is not there",
            )),
            EntryOrigin::Library => {
                report.warnings.push(finding.hint("it is meant for other model families"))
            }
        }
    }
}
