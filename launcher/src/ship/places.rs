//! Paths on a cluster as people write them: `cluster:/path`.

use std::path::{Component, Path, PathBuf};

/// What stands before a path on the cluster.
const PREFIX: &str = "cluster:";

/// The path on the cluster, if that is what a path means. A sweep file's own folder may stand before it, since paths in
/// it are taken from there.
pub fn cluster_path(path: &Path) -> Option<PathBuf> {
    let mut parts = path.components().skip_while(|part| !is_prefix(part));
    parts.next()?;
    Some(Path::new("/").join(parts.collect::<PathBuf>()))
}

fn is_prefix(part: &Component<'_>) -> bool {
    matches!(part, Component::Normal(name) if *name == PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_on_the_cluster_are_told_from_paths_here() {
        let there = |path: &str| cluster_path(Path::new(path));
        assert_eq!(there("cluster:/scratch/model"), Some("/scratch/model".into()));
        assert_eq!(there("sweeps/cluster:/scratch/model"), Some("/scratch/model".into()));
        assert_eq!(there("/home/me/model"), None);
        assert_eq!(there("cluster/model"), None);
    }
}
