//! `qlaunch recipe new`: a file of one's own that starts from a recipe that works.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use qlaunch_shared::recipe::{Body, Examination, Form, Recipe, examine};
use qlaunch_shared::{Error, Result};
use serde_json::{Value, json};

use crate::cli::main::Context;
use crate::config::library;
use crate::ui::{Comments, recipe_file};

const EXAMPLES: &str = "\
Examples:
  qlaunch recipe new mine                                      recipes/mine.yaml, from a recipe that works
  qlaunch recipe new team/fast --from nvfp4                    recipes/team/fast.yaml
  qlaunch recipe new mine --from general/ptq/nvfp4_mlp_only-kv_fp8 --out my.yaml";

/// Writes a recipe to go on from, with everything that its model imports in place; never overwrites a file.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct NewArgs {
    /// Name of the new recipe, as in `mine` or `team/fast`.
    name: String,
    /// Name or path of the recipe or preset to start from.
    #[arg(long, value_name = "RECIPE", default_value = "general/ptq/fp8_default-kv_fp8")]
    from: String,
    /// The file to write [default: recipes/NAME.yaml, where its name alone will find it].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &NewArgs, context: &mut Context) -> Result<u8> {
    let library = library(&context.around)?;
    let name = proper(&args.name)?;
    let start = examine(&library, &args.from)?;
    let recipe = sound(&start)?;
    let (path, asked) = match &args.out {
        Some(out) => (out.clone(), out.display().to_string()),
        None => {
            if let Ok(other) = examine(&library, name) {
                let known = if other.name == name { String::new() } else { format!(": `{}`", other.name) };
                return Err(Error::input(format!("there is a recipe `{name}` already{known}"))
                    .hint("choose another name, or another file with `--out FILE`"));
            }
            (Path::new("recipes").join(format!("{name}.yaml")), name.to_owned())
        }
    };
    let text = text(name, &asked, recipe, &start)?;
    write_new(&context.around.project.join(&path), &text)?;
    let next = [
        format!("qlaunch recipe check {asked} --model MODEL"),
        format!("qlaunch recipe diff {} {asked}", recipe.name),
        format!("qlaunch plan MODEL --recipe {asked}"),
    ];
    match context.screen.json {
        true => context
            .screen
            .document(&json!({"recipe": name, "file": path, "from": recipe.name, "next": next}))?,
        false => {
            context.screen.data(&format!("{} · from {}", path.display(), recipe.name))?;
            context.screen.say(&format!("next: edit it, then\n  {}", next.join("\n  ")));
        }
    }
    Ok(0)
}

/// A name that is a path below a folder on any system.
fn proper(name: &str) -> Result<&str> {
    let name = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml")).unwrap_or(name);
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
    };
    match name.split('/').all(plain) {
        true => Ok(name),
        false => Err(Error::usage(format!("`{name}` is no name for a recipe")).hint(
            "use letters, digits, `-`, `_` and `.`, with `/` between folders; `--out FILE` takes any path",
        )),
    }
}

/// The recipe to start from, if nothing is wrong with it.
fn sound(start: &Examination) -> Result<&Recipe> {
    let recipe = start.recipe.as_ref();
    recipe.ok_or_else(|| match start.errors.first() {
        Some(error) => error.clone(),
        None => Error::input(format!("`{}` is no recipe and no preset", start.name))
            .hint("`qlaunch recipe list` shows what to start from"),
    })
}

fn text(name: &str, asked: &str, recipe: &Recipe, start: &Examination) -> Result<String> {
    let mut content = recipe.resolved_json()?;
    if recipe.form == Form::Preset {
        content = json!({"metadata": {"recipe_type": recipe.metadata.recipe_type}, "quantize": content});
    }
    content["metadata"]["description"] = Value::from(format!("Started from {}.", recipe.name));
    let head = format!(
        "# {name}: started from {}, with everything that it imports in place.\n\
         # The format: docs/recipes.md, or that of ModelOpt's recipes. After a change:\n\
         #   qlaunch recipe check {asked} --model MODEL\n\n",
        recipe.name
    );
    Ok(head + &recipe_file(&content, &comments(recipe, start)))
}

/// What the parts are for, and which entries came from which building block.
fn comments(recipe: &Recipe, start: &Examination) -> Comments {
    let known = [
        (
            "quantize.algorithm",
            "How scales are found: max, mse, awq_lite, gptq, …, or null for no calibration.",
        ),
        (
            "quantize.quant_cfg",
            "Entries in order, later ones win. A `cfg` replaces everything that the matched quantizers were;\n\
             `enable` alone only switches them. Patterns are matched against full quantizer names.",
        ),
        ("auto_quantize.constraints", "What the search may spend."),
        ("auto_quantize.candidate_formats", "What it chooses from, beside leaving a module as it is."),
        ("auto_quantize.disabled_layers", "Modules that are never quantized."),
        ("auto_quantize.cost_excluded_layers", "Modules that do not count towards the budget."),
    ];
    let mut comments: Comments =
        known.into_iter().map(|(key, text)| (key.to_owned(), text.to_owned())).collect();
    let (Body::Quantize(config) | Body::AutoQuantize { baseline: Some(config), .. }) = &recipe.body else {
        return comments;
    };
    let section = if recipe.form == Form::Preset { "quant_cfg" } else { "quantize.quant_cfg" };
    // A folder's body has no section around it.
    let section = if start.mark(section) == start.mark("") { "quant_cfg" } else { section };
    let own = start.mark(section).map(|mark| &mark.source.file);
    let mut before = own;
    for index in 0..config.quant_cfg.len() {
        let source = start.mark(&format!("{section}.{index}")).map(|mark| &mark.source.file);
        if source != before
            && let Some(file) = source
        {
            let unit = file.strip_prefix("<library>").unwrap_or(file).with_extension("");
            let text =
                if source == own { "own entries".to_owned() } else { format!("from {}", unit.display()) };
            comments.insert(format!("quantize.quant_cfg.{index}"), text);
        }
        before = source;
    }
    comments
}

/// Writes a file that is not there yet.
fn write_new(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| Error::io("make the folder", folder, &error))?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| {
        match error.kind() == std::io::ErrorKind::AlreadyExists {
            true => Error::input("the file is there already, and is left as it is")
                .at(path)
                .hint("choose another name, or another file with `--out FILE`"),
            false => Error::io("write the recipe", path, &error),
        }
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|error| {
        // Half a recipe is worse than none.
        drop(fs::remove_file(path));
        Error::io("write the recipe", path, &error)
    })
}
