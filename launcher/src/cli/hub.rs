//! Names on the Hub where commands take models and data: who brings them, and what is said meanwhile.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qlaunch_shared::Result;
use qlaunch_shared::protocol::{DownloadEvent, Level};

use super::main::Context;
use super::submission::headers_folder;
use crate::config::{Overrides, Settings, Surroundings};
use crate::session::{Site, block_on};
use crate::ship::{
    Courier, Couriers, HubId, HubWanted, explain, portable_worker, ship_worker, worker_binary,
};
use crate::transport::{Host, Local};
use crate::ui::{bytes, note};

/// Time between two words about a download.
const WORDS: Duration = Duration::from_secs(10);
/// The variable with a token of the Hub.
const TOKEN: &str = "HF_TOKEN";

/// Who brings things from the Hub: by the worker, which is sent to where jobs run if it is not there.
///
/// # Errors
/// No worker, one that does not run there, a host that does not answer.
pub fn couriers(site: &Site, settings: &Settings, around: &Surroundings) -> Result<Couriers> {
    let worker = worker_binary(settings, around)?;
    let here = Courier {
        host: Host::Here(Local),
        worker: worker.clone(),
        folder: headers_folder(settings)?.join("hub"),
        into: None,
        environment: settings.profile.environment.clone(),
        token: None,
    };
    let Some(workspace) = &site.workspace else {
        return Ok(Couriers { there: here, here: None, workspace: None });
    };
    let file = portable_worker(workspace, &worker, settings)?;
    block_on(ship_worker(&site.host, &file, &settings.cluster))?;
    let (secrets, _) = around.secrets.of(&[TOKEN.to_owned()]);
    let token = secrets.iter().map(|(_, value)| value.to_owned()).find(|value| !value.is_empty());
    let there = Courier {
        host: site.host.clone(),
        worker: file.to,
        folder: workspace.join("downloads"),
        into: Some(workspace.join("huggingface/hub")),
        environment: here.environment.clone(),
        token,
    };
    // What the cluster's profile says of its network says nothing of ours.
    let here = Courier { environment: Default::default(), ..here };
    Ok(Couriers { there, here: Some(here), workspace: Some(workspace.clone()) })
}

/// The model that a path means, on this machine: downloaded if it is a name on the Hub. `folder` stands before what was
/// written.
///
/// # Errors
/// A Hub that refuses or does not answer.
pub fn model_here(path: &Path, folder: &Path, context: &mut Context) -> Result<PathBuf> {
    match HubId::of_model(path, folder)? {
        None => Ok(path.to_owned()),
        Some(id) => bring_here(&id, false, context).map_err(|error| explain(error, path)),
    }
}

/// What a plan needs of the model that a flag means: no weights are downloaded for that.
///
/// # Errors
/// A Hub that refuses or does not answer.
pub fn headers_here(path: &Path, context: &mut Context) -> Result<PathBuf> {
    match HubId::of_model(path, Path::new(""))? {
        None => Ok(path.to_owned()),
        Some(id) => bring_here(&id, true, context).map_err(|error| explain(error, path)),
    }
}

/// The data file that a flag means, on this machine: downloaded if it is a name on the Hub.
///
/// # Errors
/// A Hub that refuses or does not answer.
pub fn data_here(path: &Path, context: &mut Context) -> Result<PathBuf> {
    match HubId::of_data(path, Path::new(""))? {
        None => Ok(path.to_owned()),
        Some(id) => bring_here(&id, false, context).map_err(|error| explain(error, path)),
    }
}

fn bring_here(id: &HubId, headers: bool, context: &mut Context) -> Result<PathBuf> {
    let settings = Settings::load("local", &context.around, &Overrides::default())?;
    let site = block_on(Site::open(&settings, &context.around))?;
    let couriers = couriers(&site, &settings, &context.around)?;
    let snapshot = {
        let mut say = |text: &str| context.screen.say(text);
        let mut telling = Telling::of(&id.to_string(), &mut say);
        block_on(couriers.there.bring(id, headers, &mut |event| telling.hear(event)))?
    };
    if let Some(text) = &snapshot.note {
        context
            .screen
            .say(&note(Level::Warning, &format!("`{id}` is taken as it lies in the cache: {text}")));
    }
    let folder = snapshot.headers.unwrap_or(snapshot.folder);
    Ok(match (&id.wanted, &snapshot.files[..]) {
        (HubWanted::Data(_), [file]) => folder.join(&file.name),
        _ => folder,
    })
}

/// Says now and then how a download goes.
pub struct Telling<'a> {
    name: String,
    say: &'a mut dyn FnMut(&str),
    said: Option<Instant>,
}

impl<'a> Telling<'a> {
    /// About one download.
    pub fn of(name: &str, say: &'a mut dyn FnMut(&str)) -> Self {
        Self { name: name.to_owned(), say, said: None }
    }

    /// Something happened.
    pub fn hear(&mut self, event: &DownloadEvent) {
        let due = self.said.is_none_or(|said| said.elapsed() >= WORDS);
        match event {
            DownloadEvent::Progress { done, total } if *total > 0 && due => {
                self.said = Some(Instant::now());
                (self.say)(&format!("downloading {}: {} of {}", self.name, bytes(*done), bytes(*total)));
            }
            DownloadEvent::Again { error } => (self.say)(&format!("trying again: {}", error.message)),
            _ => {}
        }
    }
}
