//! Where the Hub and its caches are, by the variables that Hugging Face's own programs read. Gathered once, at the edge.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use qlaunch_shared::{Error, Result};

/// The Hub, unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";

/// Where the Hub is, who asks, and where its files lie.
#[derive(Clone)]
pub struct HubPlaces {
    /// Address of the Hub, without a slash at its end.
    pub endpoint: String,
    /// Whether the Hub must not be called.
    pub offline: bool,
    /// Who asks; never printed.
    pub token: Option<String>,
    /// Folders in which snapshots are looked for; the first one is where new ones are put.
    pub caches: Vec<PathBuf>,
    /// Certificates to trust instead of the built-in ones.
    pub certificates: Option<PathBuf>,
}

impl HubPlaces {
    /// Reads variables by `variable`. `into` is the cache for what is new where no variable names one: home folders of
    /// clusters are small. The token is in `token_file` where one is given.
    ///
    /// # Errors
    /// No folder for the cache, or a token file that cannot be read.
    pub fn gather(
        variable: impl Fn(&str) -> Option<OsString>,
        into: Option<PathBuf>,
        token_file: Option<PathBuf>,
    ) -> Result<Self> {
        // An empty variable is how a shell unsets one for a single command.
        let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let text = |name: &str| path(name).map(|value| value.display().to_string());
        let cache = path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
        let usual = cache.map(|cache| cache.join("huggingface"));
        let named = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(path("HF_HOME")?.join("hub")));
        let usual_cache = usual.as_ref().map(|home| home.join("hub"));
        let mut caches: Vec<PathBuf> = named.into_iter().chain(into).chain(usual_cache).collect();
        let mut seen = Vec::new();
        caches.retain(|cache| {
            !seen.contains(cache) && {
                seen.push(cache.clone());
                true
            }
        });
        if caches.is_empty() {
            return Err(Error::input("there is no folder for the Hub's cache").hint("set HF_HOME"));
        }
        let token = match &token_file {
            Some(file) => {
                Some(fs::read_to_string(file).map_err(|error| Error::io("read the token", file, &error))?)
            }
            None => text("HF_TOKEN").or_else(|| {
                let file = path("HF_TOKEN_PATH")
                    .or_else(|| Some(path("HF_HOME").or_else(|| usual.clone())?.join("token")))?;
                fs::read_to_string(file).ok()
            }),
        };
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        if token.as_ref().is_some_and(|token| !token.chars().all(|c| c.is_ascii_graphic())) {
            return Err(Error::input("the token of the Hub has characters that no token has")
                .hint("copy it again: `export HF_TOKEN=hf_…`"));
        }
        Ok(Self {
            endpoint: text("HF_ENDPOINT")
                .unwrap_or_else(|| ENDPOINT.to_owned())
                .trim_end_matches('/')
                .to_owned(),
            offline: text("HF_HUB_OFFLINE")
                .is_some_and(|value| !["0", "false", "no", "off"].contains(&&*value.to_lowercase())),
            token,
            caches,
            certificates: path("SSL_CERT_FILE").or_else(|| path("REQUESTS_CA_BUNDLE")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(variables: &[(&str, &str)], into: Option<&str>) -> HubPlaces {
        let find = |name: &str| {
            variables.iter().find(|(other, _)| *other == name).map(|(_, value)| OsString::from(value))
        };
        HubPlaces::gather(find, into.map(PathBuf::from), None).unwrap()
    }

    #[test]
    fn the_cache_is_where_hugging_faces_own_programs_have_it() {
        let first =
            |variables: &[(&str, &str)], into| gather(variables, into).caches[0].display().to_string();
        assert_eq!(first(&[("HOME", "/h")], None), "/h/.cache/huggingface/hub");
        assert_eq!(first(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], None), "/x/huggingface/hub");
        assert_eq!(first(&[("HOME", "/h"), ("HF_HOME", "/f")], Some("/w")), "/f/hub");
        assert_eq!(first(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/f")], None), "/c");
        assert_eq!(first(&[("HOME", "/h"), ("HF_HOME", "")], Some("/w")), "/w");
        let all = gather(&[("HOME", "/h")], Some("/w")).caches;
        assert_eq!(all.len(), 2, "what lies in the home folder is found all the same");
    }

    #[test]
    fn the_token_comes_from_the_variable_or_the_file_of_a_login_and_is_one_word() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let there = home.path().display().to_string();
        let token = |variables: &[(&str, &str)]| gather(variables, None).token;
        assert_eq!(token(&[("HF_HOME", &there)]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[("HF_HOME", &there), ("HF_TOKEN", "hf_word")]).as_deref(), Some("hf_word"));
        assert_eq!(token(&[("HOME", "/nowhere")]), None);
        let broken =
            |name: &str| (name == "HF_TOKEN" || name == "HOME").then(|| OsString::from("a\r\nHost: b"));
        assert!(HubPlaces::gather(broken, None, None).is_err(), "a line break would be a header of its own");
    }
}
