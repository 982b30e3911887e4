//! What a person sees: bars, tables, errors. Everything is written to a screen that was passed in.

mod bars;
mod errors;
mod figures;
mod lines;
mod modules;
mod plan;
mod portfolio;
mod recipe_diff;
mod recipe_file;
mod recipe_page;
mod recipe_report;
mod screen;
mod table;
mod track;
mod watch;
mod yaml;

pub use errors::{error, note};
pub use figures::{bytes, count, parameters, perplexity, roughly};
pub use plan::{coverage, show as show_plan, warnings};
pub use portfolio::show as show_portfolio;
pub use recipe_diff::{
    ModuleChange, module_changes, show as show_comparison, show_modules as show_module_changes,
};
pub use recipe_file::{Comments, recipe_file};
pub use recipe_page::library_page;
pub use recipe_report::{RecipeReport, show as show_recipe_report};
pub use screen::Screen;
pub use table::{Column, Table};
pub use watch::Watch;
pub use yaml::yaml;
