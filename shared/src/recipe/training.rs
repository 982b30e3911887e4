//! Recipes that train draft models: recognised and shown, with what ModelOpt derives from their data filled in.

use serde_json::{Map, Value};

use super::body::RecipeType;
use super::faults::{Checked, Faults};
use super::read::{Reader, known_keys, mapping};
use super::sections::required;
use crate::Result;
use crate::yaml::Node;

const MODEL_KEYS: [&str; 3] = ["model_name_or_path", "trust_remote_code", "use_fake_base_for_offline"];
const DATA_KEYS: [&str; 12] = [
    "mode",
    "data_path",
    "offline_data_path",
    "lazy_preprocess",
    "draft_vocab_cache",
    "chat_template",
    "vlm_img_dir",
    "vlm_processor",
    "sample_size",
    "streaming_server_url",
    "streaming_model_name",
    "final_aux_is_base_hidden",
];

/// The sections as they are; how data comes, and so whether training is offline, follows from the data's sources.
///
/// # Errors
/// Sections that are no mappings, unknown keys of `model` or `data`, and sources that contradict each other.
pub(super) fn sections(node: &Node, kind: RecipeType, reader: &mut Reader) -> Checked<Map<String, Value>> {
    let own = kind.section();
    required(node, kind)?;
    let mut faults = Faults::default();
    let mode = match node.child("data") {
        Some(data) => faults.keep(mode(data).map_err(|error| Faults::from(error).within("data"))),
        None => Some("online"),
    };
    let mut sections = Map::new();
    for (key, known) in [("model", &MODEL_KEYS[..]), ("data", &DATA_KEYS[..]), ("training", &[]), (own, &[])]
    {
        let Some(node) = node.child(key) else { continue };
        let is_mapping = mapping(node, "a section of a training recipe").map(drop);
        faults.keep(is_mapping.map_err(|error| Faults::from(error).within(key)));
        if !known.is_empty() {
            faults.keep(known_keys(node, known).map_err(|faults| faults.within(key)));
        }
        sections.insert(key.to_owned(), node.to_value());
    }
    faults.unless_any(())?;
    let mode = mode.unwrap_or("online");
    let mut derive = |section: &str, key: String, value: Value| {
        if let Some(Value::Object(section)) = sections.get_mut(section) {
            section.insert(key, value);
        }
    };
    derive("data", "mode".to_owned(), Value::from(mode));
    if kind != RecipeType::SpeculativeMedusa {
        derive(own, format!("{own}_offline"), Value::from(mode != "online"));
    }
    reader.notes.extend(rope_note(&sections, own));
    Ok(sections)
}

/// How data comes, whatever `mode` says: ModelOpt derives it anew each time.
fn mode(data: &Node) -> Result<&'static str> {
    let given = |key: &str| data.child(key).is_some_and(|node| !node.is_null());
    match (given("offline_data_path"), given("streaming_server_url")) {
        (true, true) => Err(data
            .mark
            .refuse("`offline_data_path` and `streaming_server_url` exclude each other")
            .key("streaming_server_url")
            .hint("remove one of them")),
        (true, false) => Ok("offline"),
        (false, true) if !given("streaming_model_name") => Err(data
            .mark
            .refuse("`streaming_server_url` needs `streaming_model_name`")
            .key("streaming_model_name")
            .hint("add the name under which the server has the model")),
        (false, true) => Ok("streaming"),
        (false, false) => Ok("online"),
    }
}

fn rope_note(sections: &Map<String, Value>, own: &str) -> Option<String> {
    let positions =
        sections.get(own)?.get("eagle_export_rope_scaling")?.get("original_max_position_embeddings")?;
    let length = sections.get("training")?.get("training_seq_len")?;
    (positions != length).then(|| {
        format!(
            "the rope scaling starts from {positions} positions, but training sequences have {length}: \
             long contexts may suffer"
        )
    })
}
