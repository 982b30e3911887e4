//! Modules that differ in their numbers only, in one row: `model.layers.{0-7}.mlp.up_proj`.

use std::collections::{BTreeSet, HashMap};

use qlaunch_shared::assign::{ModuleKind, ModulePlan};

/// Modules of equal numerics whose names differ in numbers.
#[derive(Debug)]
pub struct Group<'a> {
    /// Their names in one, with ranges for numbers.
    pub name: String,
    /// The first of them.
    pub like: &'a ModulePlan,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes of all of them in the source.
    pub source_bytes: u64,
}

/// Rows of modules in the order of their first members.
pub fn groups(modules: &[ModulePlan]) -> Vec<Group<'_>> {
    let shown = modules.iter().filter(|module| module.bytes > 0 || module.kind != ModuleKind::Other);
    let mut places: HashMap<_, usize> = HashMap::new();
    let mut alike: Vec<(String, Vec<&ModulePlan>)> = Vec::new();
    for module in shown {
        let shape = shape(&module.name);
        let key = (shape.clone(), &module.weight, &module.input, &module.output);
        let place = *places.entry(key).or_insert_with(|| {
            alike.push((shape, Vec::new()));
            alike.len() - 1
        });
        alike[place].1.push(module);
    }
    alike.into_iter().flat_map(|(shape, members)| rows(&shape, members)).collect()
}

/// One row where the numbers are all combinations of a few ranges, as layers and experts are; else a row for each
/// combination of all numbers but the first.
fn rows<'a>(shape: &str, members: Vec<&'a ModulePlan>) -> Vec<Group<'a>> {
    let numbers: Vec<Vec<usize>> = members.iter().map(|module| numbers(&module.name)).collect();
    let places = numbers.first().map_or(0, Vec::len);
    let sets: Vec<BTreeSet<usize>> =
        (0..places).map(|place| numbers.iter().map(|numbers| numbers[place]).collect()).collect();
    if sets.iter().map(BTreeSet::len).product::<usize>() == members.len() {
        return row(shape, &sets, &members).into_iter().collect();
    }
    let mut order: Vec<Vec<usize>> = Vec::new();
    let mut parts: HashMap<Vec<usize>, (BTreeSet<usize>, Vec<&'a ModulePlan>)> = HashMap::new();
    for (module, numbers) in members.into_iter().zip(numbers) {
        let (first, others) = numbers.split_first().map_or((0, &[][..]), |(first, others)| (*first, others));
        let part = parts.entry(others.to_vec()).or_insert_with(|| {
            order.push(others.to_vec());
            Default::default()
        });
        part.0.insert(first);
        part.1.push(module);
    }
    let part = |others: Vec<usize>| {
        let (first, members) = parts.remove(&others)?;
        let sets: Vec<BTreeSet<usize>> =
            std::iter::once(first).chain(others.into_iter().map(|number| BTreeSet::from([number]))).collect();
        row(shape, &sets, &members)
    };
    order.into_iter().filter_map(part).collect()
}

fn row<'a>(shape: &str, sets: &[BTreeSet<usize>], members: &[&'a ModulePlan]) -> Option<Group<'a>> {
    let name = sets.iter().fold(shape.to_owned(), |name, set| name.replacen('#', &ranges(set), 1));
    Some(Group {
        name,
        like: members.first()?,
        bytes: members.iter().map(|module| module.bytes).sum(),
        source_bytes: members.iter().map(|module| module.source_bytes).sum(),
    })
}

/// A name with its numbers taken out.
fn shape(name: &str) -> String {
    let parts: Vec<&str> =
        name.split('.').map(|part| if part.parse::<usize>().is_ok() { "#" } else { part }).collect();
    parts.join(".")
}

fn numbers(name: &str) -> Vec<usize> {
    name.split('.').filter_map(|part| part.parse().ok()).collect()
}

/// Numbers as ranges: `{0-3,5}`.
fn ranges(numbers: &BTreeSet<usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let words: Vec<String> = ranges
        .into_iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    match words.as_slice() {
        [one] if !one.contains('-') => one.clone(),
        several => format!("{{{}}}", several.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, weight: &str) -> ModulePlan {
        ModulePlan {
            name: name.to_owned(),
            kind: ModuleKind::Linear,
            weight: weight.to_owned(),
            input: weight.to_owned(),
            output: "bf16".to_owned(),
            bytes: 10,
            source_bytes: 20,
        }
    }

    fn names(modules: &[ModulePlan]) -> Vec<String> {
        groups(modules).into_iter().map(|group| group.name).collect()
    }

    #[test]
    fn layers_and_experts_are_ranges_where_all_combinations_are_there() {
        let all: Vec<ModulePlan> = (0..3)
            .flat_map(|layer| (0..4).map(move |expert| module(&format!("l.{layer}.e.{expert}.up"), "FP8")))
            .collect();
        assert_eq!(names(&all), ["l.{0-2}.e.{0-3}.up"]);
        assert_eq!(groups(&all)[0].bytes, 120);
        // One is missing: ranges over both numbers would claim it.
        assert_eq!(
            names(&all[1..]),
            ["l.{0-2}.e.1.up", "l.{0-2}.e.2.up", "l.{0-2}.e.3.up", "l.{1-2}.e.0.up"]
        );
    }

    #[test]
    fn modules_of_different_numerics_stand_apart() {
        let mixed = [
            module("l.0.up", "FP8"),
            module("l.1.up", "bf16"),
            module("l.2.up", "FP8"),
            module("head", "bf16"),
        ];
        assert_eq!(names(&mixed), ["l.{0,2}.up", "l.1.up", "head"]);
    }
}
