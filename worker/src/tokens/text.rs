//! Text to token ids, by the model's own tokenizer.

use std::path::{Path, PathBuf};

use qlaunch_shared::{Error, Result};
use serde_json::Value;
use tokenizers::Tokenizer;

const OTHER_WAY: &str = "fetch `tokenizer.json` again, or give token ids as `.npy`";

/// The tokenizer of a model folder.
pub struct TextReader {
    path: PathBuf,
    tokenizer: Tokenizer,
    /// Id of the token that begins a text, where the tokenizer has one.
    pub begin: Option<u32>,
}

impl TextReader {
    /// Opens `tokenizer.json` of a model folder.
    ///
    /// # Errors
    /// It is missing or cannot be understood.
    pub fn open(model: &Path) -> Result<Self> {
        let path = model.join("tokenizer.json");
        if !path.is_file() {
            return Err(Error::input("the model has no `tokenizer.json`, so text cannot be read")
                .at(&path)
                .hint("add the file, or give token ids as `.npy`"));
        }
        let mut tokenizer = Tokenizer::from_file(&path).map_err(|e| {
            Error::input(format!("cannot understand the tokenizer: {e}")).at(&path).hint(OTHER_WAY)
        })?;
        // What a tokenizer was last saved with must not cut or fill our texts.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|e| Error::input(format!("cannot use the tokenizer: {e}")).at(&path).hint(OTHER_WAY))?;
        let begin = begin_token(model).and_then(|token| tokenizer.token_to_id(&token));
        Ok(Self { path, tokenizer, begin })
    }

    /// Token ids of a text, without special tokens.
    ///
    /// # Errors
    /// The tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|e| {
            Error::input(format!("the tokenizer refuses the text: {e}")).at(&self.path).hint(OTHER_WAY)
        })?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// The text of the token that begins a text, as the tokenizer's own files name it.
fn begin_token(model: &Path) -> Option<String> {
    let from = |file: &str| -> Option<String> {
        let json: Value = serde_json::from_slice(&std::fs::read(model.join(file)).ok()?).ok()?;
        match &json["bos_token"] {
            Value::String(token) => Some(token.clone()),
            Value::Object(token) => Some(token.get("content")?.as_str()?.to_owned()),
            _ => None,
        }
    };
    from("tokenizer_config.json").or_else(|| from("special_tokens_map.json"))
}
