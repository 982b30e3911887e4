//! `qlaunch cluster`: which clusters there are, what their profiles say and from where, and the way in.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Command as Process;

use anstyle::Style;
use clap::{Args, Subcommand};
use qlaunch_shared::protocol::Level;
use qlaunch_shared::{Error, ErrorKind, Result};
use serde_json::json;

use super::cluster_check;
use super::main::Context;
use crate::config::{ClustersYaml, Kind, Overrides, Settings, SshProfile, known_clusters};
use crate::session::login_socket;
use crate::transport::has_room_for_socket;
use crate::ui::{Column, Table, note};

const EXAMPLES: &str = "\
Examples:
  qlaunch cluster list
  qlaunch cluster show hpc              every setting with the file that it comes from
  qlaunch cluster login hpc             passwords and second factors, asked by ssh itself, once for eight hours
  qlaunch cluster check hpc             SSH, SLURM, workspace, a compute node: each with a verdict

A cluster is a file: clusters/NAME.toml in your project or in ~/.config/qlaunch/clusters/. Those of ModelOpt's clusters.yaml
are read as well. See docs/slurm.md.";

/// How long a login lasts after its last use.
const LASTS: &str = "8h";

/// Lists, shows, checks clusters, and logs in.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ClusterArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The clusters that have a profile.
    List,
    /// Every setting of a cluster, with where it comes from.
    Show(Named),
    /// Whether jobs would run there, step by step.
    Check(Named),
    /// Opens a connection by hand, for passwords and second factors; later commands use it.
    Login(Named),
}

/// A cluster by its name.
#[derive(Debug, Args)]
pub struct Named {
    /// Name of the cluster.
    cluster: String,
}

/// Runs the command.
pub fn run(args: &ClusterArgs, context: &mut Context) -> Result<u8> {
    match &args.action {
        Action::List => list(context),
        Action::Show(named) => show(&settings(named, context)?, context),
        Action::Check(named) => cluster_check::run(&settings(named, context)?, context),
        Action::Login(named) => login(&settings(named, context)?, context),
    }
}

fn settings(named: &Named, context: &mut Context) -> Result<Settings> {
    let settings = Settings::load(&named.cluster, &context.around, &Overrides::default())?;
    for remark in &settings.remarks {
        context.screen.say(&note(Level::Warning, remark));
    }
    Ok(settings)
}

fn list(context: &mut Context) -> Result<u8> {
    let mut table = Table::new(vec![
        Column::left("cluster"),
        Column::left("kind"),
        Column::left("host"),
        Column::left("profile"),
    ]);
    let mut documents = Vec::new();
    let theirs = ClustersYaml::find(&context.around)?;
    let mut remarks = theirs.as_ref().map_or(Vec::new(), |theirs| theirs.remarks.clone());
    for name in known_clusters(&context.around, theirs.as_ref()) {
        // A profile that cannot be used as it is, such as the pattern for hosts behind SSH, is listed all the same.
        let loaded = Settings::load(&name, &context.around, &Overrides::default());
        let (kind, host, origin) = match &loaded {
            Ok(settings) => {
                remarks.extend_from_slice(&settings.remarks);
                let host = settings.profile.ssh.as_ref();
                let host =
                    host.map_or("this machine".to_owned(), |ssh| ssh.hosts().collect::<Vec<_>>().join(", "));
                let origin = settings.origin("profile.kind").unwrap_or_default().to_owned();
                (settings.profile.kind.name(), host, origin)
            }
            Err(error) => ("?", String::new(), error.message.clone()),
        };
        documents.push(json!({"cluster": name, "kind": kind, "host": host, "profile": origin}));
        let origin = context.screen.path(Path::new(&origin)).to_string();
        table.row(vec![name, kind.to_owned(), host, origin], Style::new());
    }
    for remark in &remarks {
        context.screen.say(&note(Level::Warning, remark));
    }
    match context.screen.json {
        true => context.screen.document(&documents)?,
        false => context.screen.data(&table.draw(context.screen.width).text)?,
    }
    Ok(0)
}

fn show(settings: &Settings, context: &mut Context) -> Result<u8> {
    let mut table = Table::new(vec![Column::left("setting"), Column::left("value"), Column::left("from")]);
    let mut documents = serde_json::Map::new();
    for (key, value, origin) in settings.all() {
        let key = key.strip_prefix("profile.").unwrap_or(key);
        // Whoever knows the address can write there.
        let value = if key == "notify.webhook" { "(not shown)" } else { value };
        documents.insert(key.to_owned(), json!({"value": value, "from": origin}));
        let origin = context.screen.path(Path::new(origin)).to_string();
        table.row(vec![key.to_owned(), value.to_owned(), origin], Style::new());
    }
    match context.screen.json {
        true => context.screen.document(&documents)?,
        false => context.screen.data(&table.draw(None).text)?,
    }
    Ok(0)
}

/// Lets ssh open a connection to each host, with everything that it wants to ask, and leaves it open for later commands.
fn login(settings: &Settings, context: &mut Context) -> Result<u8> {
    let Some(ssh) = settings.profile.ssh.as_ref().filter(|_| settings.profile.kind != Kind::Local) else {
        context.screen.say(&format!("`{}` is this machine: there is nothing to log in to", settings.cluster));
        return Ok(0);
    };
    for host in ssh.hosts() {
        let socket = login_socket(&settings.cluster, (ssh, host), &context.around)?;
        login_to(&ssh.alone(host), &socket, context)?;
    }
    Ok(0)
}

fn login_to(ssh: &SshProfile, socket: &Path, context: &mut Context) -> Result<()> {
    let folder = socket.parent().unwrap_or(socket);
    if !has_room_for_socket(socket) {
        return Err(Error::input("the path of the connection's socket is too long for ssh")
            .at(socket)
            .hint("set XDG_CONFIG_HOME to a folder with a shorter path"));
    }
    // Whoever reaches the socket is logged in.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| Error::io("make the folder", folder, &error))?;
    let mut command = Process::new("ssh");
    if let Some(config) = &ssh.config {
        command.arg("-F").arg(context.around.project.join(config));
    }
    command.arg("-S").arg(socket);
    let mut stop = Process::new("ssh");
    stop.arg("-S").arg(socket).args(["-O", "exit", &ssh.host]).stderr(std::process::Stdio::null());
    // A connection of an earlier login may be half dead: the new one takes its place.
    drop(stop.status());
    drop(std::fs::remove_file(socket));
    command.args(["-o", "ControlMaster=yes", "-o", &format!("ControlPersist={LASTS}"), "-o", "BatchMode=no"]);
    command.args(["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3", "-f", "-N"]);
    if let Some(identity) = &ssh.identity {
        command.arg("-i").arg(identity);
    }
    if let Some(user) = &ssh.user {
        command.args(["-l", user]);
    }
    if let Some(port) = ssh.port {
        command.args(["-p", &port.to_string()]);
    }
    if !ssh.jump.is_empty() {
        command.args(["-J", &ssh.jump.join(",")]);
    }
    let status = command.arg(&ssh.host).status().map_err(|error| {
        Error::new(ErrorKind::Unreachable, format!("cannot start ssh: {error}"))
            .hint("install OpenSSH's client")
    })?;
    if !status.success() {
        return Err(Error::new(ErrorKind::Login, format!("ssh could not log in to `{}`", ssh.host))
            .hint(format!("try by hand: `ssh {}`", ssh.host)));
    }
    context.screen.say(&format!(
        "logged in to `{}`; later commands use this connection until it is idle for {LASTS}",
        ssh.host
    ));
    Ok(())
}
