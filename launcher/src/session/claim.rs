//! A run's folder on another host belongs to one run folder here: nobody takes another run's results for their own.

use std::path::Path;

use qlaunch_shared::{Error, Result};

use super::drive::Drive;
use crate::backend::Backend;
use crate::transport::Transport;

/// Who drives a run: this machine, and the folder here.
pub fn owner(run: &Path) -> String {
    format!("{}:{}", rustix::system::uname().nodename().to_string_lossy(), run.display())
}

impl<B: Backend, T: Transport> Drive<'_, B, T> {
    /// Makes sure that the run's folder where jobs run is ours. What an earlier run of this very folder left is moved
    /// aside, since its journal is gone and nobody knows any more what it means.
    pub(super) async fn claim(&self) -> Result<()> {
        if self.run.site == self.run.folder {
            return Ok(());
        }
        let mark = self.run.site.join("owner");
        let (owner, birth) = (owner(&self.run.folder), self.birth.to_string());
        if let Some(bytes) = self.transport.read(&mark, 0, 4096).await? {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let (theirs, since) = text.trim().rsplit_once('\n').unwrap_or((text.trim(), ""));
            if (theirs, since) == (owner.as_str(), birth.as_str()) {
                return Ok(());
            }
            if theirs != owner {
                return Err(Error::input(format!("this run is driven from elsewhere: {theirs}"))
                    .at(&self.run.site)
                    .hint("go on there, or give the sweep another name"));
            }
            let mut aside = self.run.site.as_os_str().to_owned();
            aside.push(format!(".{since}"));
            self.transport.rename(&self.run.site, aside.as_ref()).await?;
        }
        self.transport.write(&mark, format!("{owner}\n{birth}\n").as_bytes()).await
    }
}
