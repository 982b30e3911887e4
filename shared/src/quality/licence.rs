//! Under which terms a model may be used: what the source's card and config say, carried over and never guessed.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::CARD;
use crate::model::Model;
use crate::yaml::Document;

/// Longest card that is read, in bytes; longer ones are no front matter with some prose.
const LONGEST_CARD: u64 = 1 << 20;

/// The terms of a model as its source states them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Licence {
    /// `license`, as in `apache-2.0`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub license: Option<String>,
    /// `license_name`, where `license` is `other`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub license_name: Option<String>,
    /// `license_link`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub license_link: Option<String>,
    /// Files of terms that are copied beside the checkpoint.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub files: Vec<String>,
}

impl Licence {
    /// What a model folder says: the front matter of its card, then `config.json`, and files named after licences.
    ///
    /// A card that cannot be read says nothing; it is kept beside the new one as it is.
    pub fn of(model: &Model) -> Self {
        let card = front_matter(&model.folder.join(CARD)).unwrap_or_default();
        let stated = |key: &str| {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            card.get(key).and_then(text).or_else(|| model.json.get(key).and_then(text))
        };
        Self {
            license: stated("license"),
            license_name: stated("license_name"),
            license_link: stated("license_link"),
            files: files(&model.folder),
        }
    }
}

/// The YAML between the first two lines of three dashes.
fn front_matter(card: &Path) -> Option<Value> {
    if std::fs::metadata(card).ok()?.len() > LONGEST_CARD {
        return None;
    }
    let text = std::fs::read_to_string(card).ok()?;
    let body = text.strip_prefix("---\n").or_else(|| text.strip_prefix("---\r\n"))?;
    let end = body.find("\n---")?;
    Document::parse(&body[..end], card).ok().map(|document| document.value())
}

fn files(folder: &Path) -> Vec<String> {
    let is_licence = |name: &String| {
        let name = name.to_uppercase();
        ["LICENSE", "LICENCE", "NOTICE", "USE_POLICY"].iter().any(|start| name.starts_with(start))
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(is_licence).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixture;

    #[test]
    fn the_cards_terms_go_before_the_configs() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = fixture::config();
        config["license"] = "mit".into();
        config["license_link"] = "https://example.org/terms".into();
        fixture::write(folder.path(), &config);
        std::fs::write(folder.path().join(CARD), "---\nlicense: apache-2.0\ntags: [a, b]\n---\n# A model\n")
            .unwrap();
        std::fs::write(folder.path().join("LICENSE.txt"), "terms").unwrap();
        let licence = Licence::of(&Model::open(folder.path()).unwrap());
        assert_eq!(licence.license.as_deref(), Some("apache-2.0"));
        assert_eq!(licence.license_link.as_deref(), Some("https://example.org/terms"));
        assert_eq!(licence.files, ["LICENSE.txt"]);
    }

    #[test]
    fn a_card_that_is_no_yaml_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fixture::write(folder.path(), &fixture::config());
        let model = Model::open(folder.path()).unwrap();
        for card in
            ["---\nlicense: [unclosed\n---\n", "# no front matter", "---\nlicense: mit", "---\n- a\n---\n"]
        {
            std::fs::write(folder.path().join(CARD), card).unwrap();
            assert_eq!(Licence::of(&model), Licence::default(), "{card}");
        }
    }
}
