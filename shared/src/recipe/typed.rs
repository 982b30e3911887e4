//! Values of a tree as types, with every key that is wrong instead of the first one.

use serde::de::DeserializeOwned;

use super::faults::{Checked, Faults};
use crate::yaml::{Content, Node, from_node};

/// So many wrong keys of one mapping are looked for; each costs one more reading.
const ROUNDS: usize = 16;

/// Reads a node as a type. What is wrong is set aside and the rest read again, so that the next wrong key is found.
///
/// # Errors
/// Each key or value that the type does not know, at its line.
pub(super) fn typed<T: DeserializeOwned>(node: &Node) -> Checked<T> {
    let mut faults = Faults::default();
    let first = match from_node(node) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let (mut rest, mut error, mut set_aside) = (node.clone(), first, Vec::new());
    for _ in 0..ROUNDS {
        let key = error.place.key.clone().unwrap_or_default();
        // A key that is missing only because it was set aside is no fault of its own.
        if set_aside.contains(&key) {
            break;
        }
        faults.keep::<()>(Err(error));
        if !set_key_aside(&mut rest, &key) {
            break;
        }
        set_aside.push(key);
        error = match from_node::<T>(&rest) {
            Ok(_) => break,
            Err(error) => error,
        };
    }
    Err(faults)
}

/// Takes out the entry that a dotted key names, or the nearest mapping entry above it.
fn set_key_aside(node: &mut Node, key: &str) -> bool {
    let Some((step, rest)) = key.split_once('.').or((!key.is_empty()).then_some((key, ""))) else {
        return false;
    };
    let Content::Map(mapping) = &mut node.content else {
        return false;
    };
    let below = mapping.get_mut(step).is_some_and(|child| set_key_aside(child, rest));
    below || mapping.remove(step).is_some()
}
