//! The calibration algorithm that a recipe names.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Result};

/// How scales are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// From largest magnitudes.
    Max,
}

impl Algorithm {
    /// Understands `algorithm` of a recipe: `max`, or `{method: max}` with options that change no result here.
    ///
    /// # Errors
    /// The algorithm is not one that this version has.
    pub fn parse(value: &Value) -> Result<Self> {
        let method = match value {
            Value::String(name) => name.as_str(),
            Value::Object(map) => map.get("method").and_then(Value::as_str).unwrap_or("max"),
            Value::Null => "null",
            _ => "",
        };
        match method {
            "max" => Ok(Self::Max),
            _ => Err(Error::input(format!("the calibration algorithm `{value}` is not supported"))
                .key("quantize.algorithm")
                .hint("`max` is")),
        }
    }
}
