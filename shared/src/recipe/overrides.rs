//! `a.b.c=value` overrides on top of a resolved recipe.

use std::path::PathBuf;
use std::sync::Arc;

use super::raw::translate_floats;
use crate::yaml::{Content, Document, Entry, Mapping, Mark, Node, Source};
use crate::{Error, Result};

/// Sets the values; keys that are not there yet are added, list elements are named by their index.
///
/// # Errors
/// An override without `=` or with a value that is not YAML, or a path through something that holds nothing.
pub(super) fn apply(mut root: Node, overrides: &[String]) -> Result<Node> {
    for written in overrides {
        let Some((path, value)) = written.split_once('=') else {
            return Err(Error::usage(format!("the override `{written}` has no `=`"))
                .hint("write it as `quantize.algorithm=max`"));
        };
        let source = Arc::new(Source { file: PathBuf::from(format!("override `{path}`")), library: false });
        let mark = Mark { source: Arc::clone(&source), line: 1, column: path.len() + 2 };
        let value = Document::parse_override(value, source)?;
        let steps: Vec<&str> = path.split('.').collect();
        if steps.iter().any(|step| step.trim().is_empty()) {
            return Err(Error::usage(format!("the override `{written}` has an empty key"))
                .hint("write it as `quantize.algorithm=max`"));
        }
        set(&mut root, &steps, value, &mark).map_err(|message| {
            Error::usage(message).key(path).hint("`qlaunch recipe show NAME` shows the keys")
        })?;
    }
    translate_floats(&mut root);
    Ok(root)
}

fn set(node: &mut Node, steps: &[&str], value: Node, mark: &Mark) -> Result<(), String> {
    let Some((step, rest)) = steps.split_first() else {
        *node = merged(std::mem::replace(node, value.clone()), value);
        return Ok(());
    };
    if let Content::List(list) = &mut node.content {
        let length = list.len();
        let element = step.trim().parse::<usize>().ok().and_then(|index| list.get_mut(index));
        let element = element.ok_or_else(|| format!("`{step}` is no index of this list of {length}"))?;
        return set(element, rest, value, mark);
    }
    if !matches!(node.content, Content::Map(_)) {
        // As OmegaConf does: a mapping takes the place of whatever stood here.
        *node = Node { content: Content::Map(Mapping::default()), mark: mark.clone() };
    }
    let Content::Map(mapping) = &mut node.content else {
        return Ok(());
    };
    let key = step.trim().to_owned();
    if mapping.get(&key).is_none() {
        let nothing = Node { content: Content::Null, mark: mark.clone() };
        mapping.update([Entry { key: key.clone(), mark: mark.clone(), node: nothing }].into_iter().collect());
    }
    match mapping.get_mut(&key) {
        Some(child) => set(child, rest, value, mark),
        None => Ok(()),
    }
}

/// Mappings are merged deeply, anything else is replaced.
fn merged(old: Node, new: Node) -> Node {
    match (old.content, new.content) {
        (Content::Map(mut base), Content::Map(own)) => {
            for mut entry in own {
                if let Some(under) = base.remove(&entry.key) {
                    entry.node = merged(under.node, entry.node);
                }
                base.update([entry].into_iter().collect());
            }
            Node { content: Content::Map(base), mark: old.mark }
        }
        (_, content) => Node { content, mark: new.mark },
    }
}
