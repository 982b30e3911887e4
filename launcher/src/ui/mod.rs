//! What a person sees: bars, tables, errors. Everything is written to a screen that was passed in.

mod bars;
mod errors;
mod figures;
mod lines;
mod plan;
mod portfolio;
mod screen;
mod table;
mod track;
mod watch;
mod yaml;

pub use errors::{error, note};
pub use figures::{bytes, count, parameters, perplexity};
pub use plan::{coverage, show as show_plan};
pub use portfolio::show as show_portfolio;
pub use screen::Screen;
pub use table::{Column, Table};
pub use watch::Watch;
pub use yaml::yaml;
